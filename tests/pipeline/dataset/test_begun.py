"""A scan that was killed within a file goes on where it was, and its pieces are gone in the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset import begun
from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import Dataset, DatasetSettings
from pipeline.dataset.forms.pictures import Pictures
from pipeline.dataset.images import ImageInspector
from pipeline.storage.digests import digest
from tests.pipeline.dataset.forms.small_files import PNG, write_jsonl, write_parquet

ROWS = 1200


class Killed(Exception):
    """Ends a scan from outside."""


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """The images that were tried, all pieces being written at once."""
    found: list[bytes | None] = []
    inspect = ImageInspector.inspect

    def noting(self: ImageInspector, images: Sequence[bytes | None]) -> list[str | None]:
        found.extend(images)
        return inspect(self, images)

    monkeypatch.setattr(ImageInspector, "inspect", noting)
    monkeypatch.setattr(begun, "SECONDS", 0.0)
    return found


def parquet(folder: Path) -> None:
    images = [PNG + n.to_bytes(4, "big") for n in range(ROWS)]
    texts = [None if n % 7 == 0 else f"text {n}" for n in range(ROWS)]
    ids = [f"row {n}" for n in range(ROWS)]
    write_parquet(folder / "a.parquet", id=ids, image=images, text=texts)


def jsonl(folder: Path) -> None:
    for n in range(ROWS):
        (folder / f"{n}.png").write_bytes(PNG + n.to_bytes(4, "big"))
    rows = [{"id": f"row {n}", "image": f"{n}.png", "text": f"text {n}"} for n in range(ROWS)]
    write_jsonl(folder / "a.jsonl", rows)


def scan(folder: Path, kept: str, kill_after: int | None = None) -> Catalog:
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if kill_after is not None and done >= kill_after:
            raise Killed

    return Catalog.scan(Dataset.open(DatasetSettings(path="data"), folder), folder / kept, advance)


@pytest.mark.parametrize("write", [parquet, jsonl])
def test_a_scan_that_was_killed_again_and_again_tries_every_image_once(
    tmp_path: Path, tried: list[bytes | None], write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    fresh = scan(tmp_path, "fresh")
    tried.clear()
    read: list[str] = []
    read_images = Pictures.read_images

    def noting(self: Pictures, paths: Sequence[str]) -> Any:
        read.extend(paths)
        return read_images(self, paths)

    monkeypatch.setattr(Pictures, "read_images", noting)
    for kill_after in (300, 600, 900):
        with pytest.raises(Killed):
            scan(tmp_path, "catalog", kill_after)
    found = scan(tmp_path, "catalog")
    assert found.table.equals(fresh.table)
    assert found.details().equals(fresh.details())
    assert len(tried) == len(set(tried)) == ROWS
    # Those in files of their own are not even read again, but for a batch that was under way.
    assert len(read) <= (0 if write is parquet else ROWS + 3 * 32 + 128)
    assert not list((tmp_path / "catalog").glob("*.begun"))


def test_pieces_of_a_file_that_was_changed_are_not_gone_on_from(
    tmp_path: Path, tried: list[bytes | None]
) -> None:
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data")
    with pytest.raises(Killed):
        scan(tmp_path, "catalog", 600)
    table = pq.read_table(tmp_path / "data" / "a.parquet").slice(100)
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    tried.clear()
    assert scan(tmp_path, "catalog").table["id"].to_pylist() == table["id"].to_pylist()
    assert len(tried) == len(table)
    assert not list((tmp_path / "catalog").glob("*.begun"))


def test_the_details_of_many_files_are_read_where_there_are_pairs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    for n in range(30):
        texts = [f"text {n} {i}" if n % 10 == 3 else None for i in range(4)]
        ids = [f"{n} {i}" for i in range(4)]
        images = [PNG + bytes([n, i]) for i in range(4)]
        columns = {"id": ids, "image": images, "text": texts, "license": ["CC0"] * 4}
        table = pa.table(columns, schema=pa.schema(
            [("id", pa.string()), ("image", pa.binary()), ("text", pa.string()),
             ("license", pa.string())]
        ))  # fmt: skip
        pq.write_table(table, tmp_path / "data" / f"{n:02d}.parquet")
    catalog = scan(tmp_path, "catalog")
    reads = []
    read_table = pq.read_table

    def counting(*arguments: Any, **options: Any) -> Any:
        reads.append(arguments)
        return read_table(*arguments, **options)

    monkeypatch.setattr("pipeline.dataset.catalog.pq.read_table", counting)
    details = catalog.details().to_pydict()
    expected = [[f"text {n} {i}"] for n in (3, 13, 23) for i in range(4)]
    images = [digest(PNG + bytes([n, i])) for n in (3, 13, 23) for i in range(4)]
    assert details == {"captions": expected, "licence": ["CC0"] * 12}
    assert len(reads) == 3
    assert catalog.digests("image") == images
    assert catalog.digests("text") == [digest(*texts) for texts in expected]


def test_a_row_takes_at_most_64_bytes_beside_its_id(tmp_path: Path) -> None:
    rows = [{"id": f"{n}", "text": f"text {n}" if n % 2 else None, "more": n} for n in range(2000)]
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "a.jsonl", rows)
    table = scan(tmp_path, "catalog").table
    held = sum(table[name].nbytes for name in table.column_names if name != "id")
    assert held <= 64 * len(rows)
