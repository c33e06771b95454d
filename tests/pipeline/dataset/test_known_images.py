"""Nightly images that join a folder: only they are read, and what is found is what a first scan finds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import Dataset, DatasetSettings
from pipeline.dataset.forms.pictures import Pictures
from pipeline.dataset.images import CRASHED, TOO_LONG
from pipeline.dataset.known_images import KnownImages


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


class Folder:
    """Images, local or on a URL, and rows that name most of them."""

    def __init__(self, url: str, table: str) -> None:
        self.url = url
        self.fs, self.path = fsspec.url_to_fs(url)
        self.table = table
        for number in range(8):
            self.put(f"{number}.png", png(number))
        self.put("8.png", b"no image")
        self.write(range(9))

    def put(self, name: str, content: bytes) -> None:
        self.fs.pipe_file(f"{self.path}/{name}", content)

    def write(self, numbers: Any) -> None:
        rows = [{"id": str(n), "file_name": f"{n}.png", "text": f"text {n}"} for n in numbers]
        rows += [{"id": "twice", "file_name": "3.png"}, {"id": "none", "file_name": "gone.png"}]
        self.put(self.table, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def scan(self, place: Path) -> list[dict[str, Any]]:
        dataset = Dataset.open(DatasetSettings(path=self.url), Path("/"))
        table = Catalog.scan(dataset, place).table.drop_columns(["file", "position"])
        return sorted(table.to_pylist(), key=lambda row: row["id"])


@pytest.fixture(params=["metadata.jsonl", "rows.jsonl", "on a server"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param != "on a server":
        (tmp_path / "data").mkdir()
        yield Folder(str(tmp_path / "data"), request.param)
        return
    yield Folder(f"memory://{tmp_path.name}", "metadata.jsonl")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def images_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    whole = Pictures.read_image

    def read_image(pictures: Pictures, path: str) -> tuple[bytes | None, str | None]:
        names.append(path)
        return whole(pictures, path)

    monkeypatch.setattr(Pictures, "read_image", read_image)
    return names


def test_one_image_more_is_the_only_one_that_is_read(
    folder: Folder, tmp_path: Path, images_read: list[str]
) -> None:
    folder.scan(tmp_path / "kept")
    folder.put("9.png", png(9))
    folder.write(range(10))
    images_read.clear()
    found = folder.scan(tmp_path / "kept")
    assert sorted(images_read) == ["9.png", "gone.png"]
    assert found == folder.scan(tmp_path / "anew")
    assert [row["image_reason"] for row in found if row["id"] in ("8", "none")] == [
        "undecodable",
        "no such file 'gone.png'",
    ]


def test_an_image_that_changed_or_went_is_found_so(
    folder: Folder, tmp_path: Path, images_read: list[str]
) -> None:
    before = folder.scan(tmp_path / "kept")
    folder.put("1.png", png(100) + b" ")
    folder.put("8.png", png(8))
    folder.fs.rm(f"{folder.path}/2.png")
    images_read.clear()
    found = folder.scan(tmp_path / "kept")
    assert sorted(images_read) == ["1.png", "2.png", "8.png", "gone.png"]
    assert found == folder.scan(tmp_path / "anew")
    changed = [a["id"] for a, b in zip(before, found, strict=True) if a["content"] != b["content"]]
    assert changed == ["1", "2", "8"]


def test_a_fault_of_the_moment_is_not_known_for_good(folder: Folder) -> None:
    dataset = Dataset.open(DatasetSettings(path=folder.url), Path("/"))
    known = KnownImages(dataset, None)
    for fault, kept in ((TOO_LONG, False), (CRASHED, False), ("undecodable", True)):
        assert not known.holds("1.png")
        assert (known.version_read("1.png", fault) is not None) is kept


@pytest.mark.parametrize("kind", ["struct", "list", "captions.json"])
def test_images_arrive_for_rows_after_many_that_name_none(tmp_path: Path, kind: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    paths = [None] * 80 + [f"{n}.png" for n in range(4)]
    if kind == "captions.json":
        images = [{"id": n} | ({"file_name": p} if p else {}) for n, p in enumerate(paths)]
        told = [{"image_id": n, "caption": f"text {n}"} for n in range(len(paths))]
        (data / kind).write_text(json.dumps({"images": images, "annotations": told}))
    else:
        cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        cells = [path and {"bytes": None, "path": path} for path in paths]
        column = pa.array(cells, cell)
        if kind == "list":
            column = pa.array([one and [one] for one in cells], pa.list_(cell))
        table = {"image": column, "text": [f"text {n}" for n in range(len(paths))]}
        pq.write_table(pa.table(table), data / "a.parquet")
    for there in (0, 4):
        for number in range(there):
            (data / f"{number}.png").write_bytes(png(number))
        dataset = Dataset.open(DatasetSettings(path=str(data)), Path("/"))
        assert len(Catalog.scan(dataset, tmp_path / "found").complete()) == there
