"""A table or archive without a byte beside others is told, and the others are read."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import DatasetError
from pipeline.dataset.overlooked import overlooked
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, read

ROW = {"id": "1", "image": "1.png", "text": "a hat"}


def _table() -> pa.Table:
    return pa.table({"id": ["1"], "image": [PNG], "text": ["a hat"]})


def _csv(path: Path) -> None:
    path.with_name("1.png").write_bytes(PNG)
    path.write_text("id,image,text\n1,1.png,a hat\n")


def _jsonl(path: Path) -> None:
    path.with_name("1.png").write_bytes(PNG)
    path.write_text(json.dumps(ROW) + "\n")


def _parquet(path: Path) -> None:
    pq.write_table(_table(), path)


def _arrow(path: Path) -> None:
    with pa.ipc.new_file(str(path), _table().schema) as writer:
        writer.write_table(_table())


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in (("1.png", PNG), ("1.txt", b"a hat")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("1.png", PNG)
    path.with_name("rows.jsonl").write_text(json.dumps(ROW) + "\n")


def _metadata(path: Path) -> None:
    path.with_name("1.png").write_bytes(PNG)
    path.write_text("file_name,text\n1.png,a hat\n")


def _shard(path: Path) -> None:
    table = {"key": ["0"], "status": ["success"], "caption": ["a hat"]}
    pq.write_table(pa.table(table), path)
    path.with_name(f"{path.stem}_stats.json").write_text("{}")
    _tar(path.with_suffix(".tar"))


@pytest.mark.parametrize(
    ("whole", "empty", "write"),
    [
        ("b.csv", "a.csv", _csv),
        ("a.csv", "b.csv", _csv),
        ("b.jsonl", "a.jsonl", _jsonl),
        ("b.parquet", "a.parquet", _parquet),
        ("a.parquet", "b.parquet", _parquet),
        ("b.arrow", "a.arrow", _arrow),
        ("a.arrow", "b.arrow", _arrow),
        ("b.tar", "a.tar", _tar),
        ("a.tar", "b.tar", _tar),
        ("b.zip", "a.zip", _zip),
        ("b/metadata.csv", "metadata.csv", _metadata),
        ("00001.parquet", "00000.parquet", _shard),
        # Of other forms, one alone is of rows.
        ("b.parquet", "log.csv", _parquet),
        ("b.parquet", "metadata.csv", _parquet),
        ("b.csv", "metadata.csv", _csv),
        ("b.tar", "00000.parquet", _tar),
        ("00000.tar", "00000.parquet", _tar),
    ],
)
def test_it_is_named_and_the_others_are_read(
    tmp_path: Path, whole: str, empty: str, write: Callable[[Path], None]
) -> None:
    data = tmp_path / "data"
    (data / whole).parent.mkdir(parents=True)
    write(data / whole)
    (data / empty).touch()
    dataset = open_dataset(data)
    assert [row["text"] for row in read(dataset)] == [["a hat"]]
    told = overlooked(Catalog.scan(dataset, tmp_path / "found"))
    assert [line for line in told if empty in line] == [
        f"1 empty file ({empty}): nothing is read of it; copy or write again what should hold rows"
    ]


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("a.csv.gz", gzip.compress(b"")),
        ("c.csv.xz", lzma.compress(b"")),
        ("a.csv", b"\n\n"),
        ("c.csv", b"\xef\xbb\xbf"),
        ("c.jsonl.bz2", bz2.compress(b"\n")),
        ("a.tar.gz", gzip.compress(b"")),
        ("c.tar.zst", bytes(pa.compress(b"", "zstd", asbytes=True))),
    ],
)
def test_so_is_one_that_is_empty_once_it_is_unpacked_or_blank(
    tmp_path: Path, name: str, held: bytes
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    form = name[1:].partition(".")[2].split(".")[0]
    {"csv": _csv, "jsonl": _jsonl, "tar": _tar}[form](data / f"b.{form}")
    (data / name).write_bytes(held)
    dataset = open_dataset(data)
    assert [row["text"] for row in read(dataset)] == [["a hat"]]
    told = overlooked(Catalog.scan(dataset, tmp_path / "found"))
    assert [line.split(":")[0] for line in told if name in line] == [f"1 empty file ({name})"]


def test_a_dataset_of_nothing_else_is_refused_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    with pytest.raises(DatasetError, match=r"no file of format csv but 1 empty file \(a\.csv\)"):
        open_dataset(tmp_path)


def test_the_tar_of_a_shard_that_was_never_written_has_no_image(tmp_path: Path) -> None:
    _shard(tmp_path / "00000.parquet")
    (tmp_path / "00000.tar").write_bytes(b"")
    (row,) = read(open_dataset(tmp_path))
    assert (row["image_reason"], row["text"]) == ("no such file '0'", ["a hat"])
