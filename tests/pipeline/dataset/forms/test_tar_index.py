"""Where the members of tars lie is found once, and a row of any of them costs its own bytes."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import Dataset, DatasetSettings
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.tar_index import OPEN, TarIndex
from pipeline.dataset.sources import Sources
from tests.pipeline.dataset.forms.small_files import PNG
from tests.pipeline.dataset.forms.test_tars import write_tar

TARS, SAMPLES, PADDING = 3 * OPEN, 20, 2000


def content(tar: int, sample: int) -> bytes:
    return PNG + b"%d %d" % (tar, sample) + bytes(PADDING)


def write_shards(folder: Path, mode: str = "w", listed: bool = False) -> None:
    """Shards of pictures and captions, or of pictures beside img2dataset's lists."""
    folder.mkdir()
    for tar in range(TARS):
        members = []
        for n in range(SAMPLES):
            members.append((f"{tar:03d}{n:03d}.png", content(tar, n)))
            if not listed:
                members.append((f"{tar:03d}{n:03d}.txt", f"text {tar} {n}".encode()))
        write_tar(folder / f"{tar:05d}.tar", members, mode)
        if listed:
            keys = [f"{tar:03d}{n:03d}" for n in range(SAMPLES)]
            texts = [f"text {tar} {n}" for n in range(SAMPLES)]
            table = {"key": keys, "caption": texts, "status": ["success"] * SAMPLES}
            pq.write_table(pa.table(table), folder / f"{tar:05d}.parquet")


def sources(folder: Path) -> Sources:
    settings = DatasetSettings(path=str(folder / "data"))
    return Sources(settings, (), folder, folder / "catalog")


class Counted(io.RawIOBase):
    """A file that adds up what is read of it."""

    def __init__(self, file: IO[bytes], reads: list[int]) -> None:
        self._file, self._reads = file, reads

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._reads.append(len(data))
        return data

    def seek(self, *place: int) -> int:
        return self._file.seek(*place)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


@pytest.mark.parametrize("listed", [False, True])
def test_a_row_of_any_of_many_tars_costs_its_own_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    write_shards(tmp_path / "data", listed=listed)
    assert len(sources(tmp_path).catalog()) == TARS * SAMPLES
    # Another process, later: nothing is in memory.
    again = sources(tmp_path)
    again.catalog()
    reads: list[int] = []
    opened = Root.open

    def counting(root: Root, name: str) -> Any:
        file = opened(root, name)
        return Counted(file, reads) if name.endswith(".tar") else file

    def refused(*args: Any) -> Any:
        raise AssertionError("the headers of a tar are read again")

    monkeypatch.setattr(Root, "open", counting)
    monkeypatch.setattr(TarIndex, "read", refused)
    asked = [(tar, n) for tar in range(TARS) for n in (3, 17)]
    random.Random(0).shuffle(asked)
    suffix = ".parquet" if listed else ".tar"
    for tar, n in asked:
        reads.clear()
        pair = {"source": "internal", "file": f"{tar:05d}{suffix}", "position": n}
        assert again.encoded_pictures([pair]) == [content(tar, n)]
        assert sum(reads) < 1.1 * len(content(tar, n))


def test_a_tar_that_was_changed_is_looked_through_again(tmp_path: Path) -> None:
    write_shards(tmp_path / "data")
    sources(tmp_path).catalog()
    write_tar(tmp_path / "data" / "00001.tar", [("new.png", PNG), ("new.txt", b"new")])
    found = sources(tmp_path)
    assert len(found.catalog()) == (TARS - 1) * SAMPLES + 1
    pair = {"source": "internal", "file": "00001.tar", "position": 0}
    assert found.encoded_pictures([pair]) == [PNG]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2"])
def test_rows_of_a_compressed_tar_are_the_same_by_a_kept_index(tmp_path: Path, mode: str) -> None:
    write_shards(tmp_path / "data", mode)
    sources(tmp_path).catalog()
    again = sources(tmp_path)
    pairs = [
        {"source": "internal", "file": f"{tar:05d}.tar", "position": n}
        for tar, n in [(7, 19), (7, 2), (40, 0)]
    ]
    assert again.encoded_pictures(pairs) == [content(7, 19), content(7, 2), content(40, 0)]


def test_links_and_holes_are_as_they_were_in_a_kept_index(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("d/1.png")
        info.size = len(PNG)
        tar.addfile(info, io.BytesIO(PNG))
        for name, target in (("d/2.png", "1.png"), ("d/3.png", "/etc/passwd")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    with path.open("rb") as file:
        index = TarIndex.read("a.tar", file)
    index.save(tmp_path / "kept", "1")
    kept = TarIndex.load(tmp_path / "kept", "1")
    assert kept is not None and TarIndex.load(tmp_path / "kept", "2") is None
    assert list(kept.samples()) == list(index.samples())
    assert [members[0].offset for _, members in kept.samples([2, 0])] == [-1, 512]


def test_a_dataset_without_a_folder_keeps_no_file(tmp_path: Path) -> None:
    write_shards(tmp_path / "data")
    dataset = Dataset.open(DatasetSettings(path="data"), tmp_path)
    Catalog.scan(dataset, tmp_path / "catalog")
    assert not list(tmp_path.rglob("*.tar.arrow"))
