"""An image that a row holds or names in any way is read, and it is that row's own."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import Dataset, DatasetSettings
from pipeline.dataset.overlooked import overlooked
from tests import quick_worlds


def square(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 40, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(path: Path | str, base: Path) -> dict[str, bytes | None]:
    """The images of a dataset's rows by id."""
    dataset = Dataset.open(DatasetSettings(path=str(path)), base)
    found = {}
    for file in dataset.files:
        for batch in dataset.batches(file):
            for row in batch.to_pylist():
                found[row["id"]] = row["image"]["bytes"]
    return found


def test_a_path_means_the_file_beside_its_table_before_one_from_the_root(tmp_path: Path) -> None:
    put(tmp_path / "d/images/1.png", square(1))
    put(tmp_path / "d/more/images/1.png", square(2))
    put(tmp_path / "d/rows.jsonl", lines({"id": "a", "image": "images/1.png", "text": "x"}))
    put(tmp_path / "d/more/rows.jsonl", lines({"id": "b", "image": "images/1.png", "text": "y"}))
    assert read(tmp_path / "d", tmp_path) == {"a": square(1), "b": square(2)}


def test_metadata_of_a_folder_names_its_own_images_whatever_lies_below(tmp_path: Path) -> None:
    put(tmp_path / "d/train/1.png", square(1))
    put(tmp_path / "d/train/train/1.png", square(2))
    told = lines({"id": "a", "file_name": "1.png", "text": "x"})
    put(tmp_path / "d/train/metadata.jsonl", told)
    assert read(tmp_path / "d", tmp_path)["a"] == square(1)


def test_metadata_of_a_folder_may_name_images_from_the_root(tmp_path: Path) -> None:
    put(tmp_path / "d/train/1.png", square(1))
    told = lines({"id": "a", "file_name": "train/1.png", "text": "x"})
    put(tmp_path / "d/train/metadata.jsonl", told)
    assert read(tmp_path / "d", tmp_path) == {"a": square(1)}


@pytest.mark.parametrize("mixed", [False, True])
def test_of_several_images_of_a_row_the_first_that_is_there_counts(
    tmp_path: Path, mixed: bool
) -> None:
    put(tmp_path / "d/1.png", square(1))
    put(tmp_path / "d/2.png", square(2))
    rows: list[Any] = [["1.png", "2.png"], ["gone.png", "2.png"], [None, "2.png"], ["gone.png"]]
    rows += ["1.png"] if mixed else []
    told = [{"id": str(n), "image": image, "text": "x"} for n, image in enumerate(rows)]
    put(tmp_path / "d/rows.jsonl", lines(*told))
    found = list(read(tmp_path / "d", tmp_path).values())
    assert found == [square(1), square(2), square(2), None, square(1)][: len(rows)]


def test_of_several_images_in_bytes_the_first_that_is_there_counts(tmp_path: Path) -> None:
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    held = [[None, {"bytes": square(2), "path": None}], [], None, [{"bytes": square(1)}]]
    columns = {"id": list("abcd"), "image": pa.array(held, pa.list_(cell)), "text": ["x"] * 4}
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "d/a.parquet")
    assert list(read(tmp_path / "d", tmp_path).values()) == [square(2), None, None, square(1)]


@pytest.mark.parametrize(
    "written",
    [
        base64.encodebytes(square(7)).decode(),
        base64.urlsafe_b64encode(square(7)).decode(),
        base64.b64encode(square(7)).decode().rstrip("="),
        "\n" + base64.b64encode(square(7)).decode() + "\n",
        "data:image/png;base64," + base64.encodebytes(square(7)).decode(),
        {"bytes": base64.b64encode(square(7)).decode(), "path": None},
        {"bytes": base64.b64encode(square(7)).decode(), "path": "camera/7.png"},
    ],
)
def test_base64_is_read_however_it_was_written(tmp_path: Path, written: object) -> None:
    put(tmp_path / "d/rows.jsonl", lines({"id": "a", "image": written, "text": "x"}))
    assert read(tmp_path / "d", tmp_path) == {"a": square(7)}


def test_a_url_that_leads_into_the_datasets_own_folder_is_read(tmp_path: Path) -> None:
    put(tmp_path / "d/a photo.png", square(1))
    put(tmp_path / "other.png", square(2))
    urls = [(tmp_path / n).as_uri() for n in ("d/a photo.png", "other.png")]
    urls.append("https://example.com/d/a photo.png")
    told = [{"id": str(n), "image": url, "text": "x"} for n, url in enumerate(urls)]
    put(tmp_path / "d/rows.jsonl", lines(*told))
    assert list(read(tmp_path / "d", tmp_path).values()) == [square(1), None, None]


def test_a_url_of_another_file_system_that_leads_into_the_folder_is_read(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    urls = ["memory://named/d/1.png", "memory://named/other.png"]
    told = [{"id": str(n), "image": url, "text": "x"} for n, url in enumerate(urls)]
    files = {"d/1.png": square(1), "other.png": square(2), "d/rows.jsonl": lines(*told)}
    memory.pipe({f"/named/{name}": data for name, data in files.items()})
    assert list(read("memory://named/d", tmp_path).values()) == [square(1), None]


def test_pixels_in_lists_are_told_of_where_no_image_is_found(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    columns = {"id": [1], "image": [[[1, 2], [3, 4]]], "text": ["x"]}
    pq.write_table(pa.table(columns), tmp_path / "d/a.parquet")
    dataset = Dataset.open(DatasetSettings(path=str(tmp_path / "d")), tmp_path)
    (line,) = overlooked(Catalog.scan(dataset, tmp_path / "catalog"))
    assert line.startswith("every row counts as without image, which may lie in 'image' (list<")


def test_each_row_of_a_run_keeps_the_image_that_it_names(tmp_path: Path) -> None:
    given: dict[str, bytes] = {}
    for folder, numbers in (("", range(20)), ("more/", range(20, 36))):
        told = []
        for place, number in enumerate(numbers):
            row = quick_worlds.row(number)
            data = given[row["id"]] = row["image"]["bytes"]
            path = f"images/{place}.png"
            put(tmp_path / "data" / f"{folder}{path}", data)
            coded = {"bytes": base64.b64encode(data).decode(), "path": None}
            image = ([["gone.png", path]] * 2 + [path] * 2 + [coded])[number % 5]
            text = None if number % 9 == 4 else row["text"]
            told.append({"id": row["id"], "image": image, "text": text})
        put(tmp_path / "data" / f"{folder}rows.jsonl", lines(*told))
    job, summary = quick_worlds.run(quick_worlds.config(tmp_path))
    assert summary["outcomes"] == {"observed": 32, "completed": 4, "rejected": 0, "failed": 0}
    found = {key: row["image"]["bytes"] for key, row in quick_worlds.completed(job).items()}
    assert found == given
