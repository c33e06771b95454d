"""A sample of a tar is one row, however its members lie in it and however it was packed."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import Dataset, DatasetError
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, read


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            _add(tar, name, data)
    return path


def picture(number: int) -> bytes:
    return PNG + bytes([number % 256])


SCATTERED = [(f"{i:03d}.png", picture(i)) for i in range(300)]
SCATTERED += [(f"{i:03d}.txt", f"text {i}".encode()) for i in range(0, 300, 2)]


def check_scattered(dataset: Dataset) -> None:
    rows = read(dataset)
    assert [row["image"]["bytes"] for row in rows] == [picture(i) for i in range(300)]
    assert [row["text"] for row in rows] == [[] if i % 2 else [f"text {i}"] for i in range(300)]
    fetched = dataset.fetch(dataset.files[0], [298, 3, 0]).to_pylist()
    assert [row["id"] for row in fetched] == ["298", "003", "000"]
    assert [row["text"] for row in fetched] == [["text 298"], [], ["text 0"]]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.tar", "w"),
        ("a.tar.gz", "w:gz"),
        ("a.tar", "w:gz"),
        ("a.tar", "w:bz2"),
        ("a.tar", "w:xz"),
    ],
)
def test_texts_that_lie_behind_all_pictures_are_those_of_their_samples(
    tmp_path: Path, name: str, mode: str
) -> None:
    write_tar(tmp_path / name, SCATTERED, mode)
    check_scattered(open_dataset(tmp_path))


def test_a_tar_appended_to_another_is_read_as_well(tmp_path: Path) -> None:
    first = write_tar(tmp_path / "1", SCATTERED[:300]).read_bytes()
    second = write_tar(tmp_path / "2", SCATTERED[300:]).read_bytes()
    (tmp_path / "a.tar").write_bytes(first + second)
    check_scattered(open_dataset(tmp_path / "a.tar"))


@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_files_with_holes_are_whole(tmp_path: Path, format: str) -> None:
    (tmp_path / "in").mkdir()
    wanted = {}
    for number in range(3):
        path = tmp_path / "in" / f"{number}.png"
        with path.open("wb") as file:
            file.write(picture(number))
            file.seek(400_000 * (number + 1))
            file.write(b"end")
            if number == 2:
                file.truncate(2_000_000)
        wanted[str(number)] = path.read_bytes()
        (tmp_path / "in" / f"{number}.txt").write_text(f"text {number}")
    names = sorted(os.listdir(tmp_path / "in"))
    packed = tmp_path / "a.tar"
    command = ["tar", "-S", f"--format={format}", "-cf", str(packed), "-C", str(tmp_path / "in")]
    subprocess.run([*command, *names], check=True)
    assert packed.stat().st_size < 1_000_000
    rows = read(open_dataset(packed))
    assert {row["id"]: row["image"]["bytes"] for row in rows} == wanted
    assert [row["text"] for row in rows] == [["text 0"], ["text 1"], ["text 2"]]


def test_links_within_a_tar_are_what_they_lead_to(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        _add(tar, "d/1.png", PNG)
        for name, kind, target in [
            ("d/2.png", tarfile.LNKTYPE, "d/1.png"),
            ("d/3.png", tarfile.SYMTYPE, "1.png"),
            ("d/4.png", tarfile.SYMTYPE, "/etc/passwd"),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    rows = read(open_dataset(tmp_path))
    assert [row["image"]["bytes"] for row in rows] == [PNG, PNG, PNG, None]
    assert rows[3]["image_reason"] == "outside the data's folder"


def test_a_second_picture_of_a_sample_passes_through(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("1.png", b"mask"), ("1.jpg", PNG), ("1.txt", b"a")])
    (row,) = read(open_dataset(tmp_path))
    assert row["image"] == {"bytes": PNG, "path": "1.jpg"}
    assert row["extra"] == {"png": b"mask"}


def test_a_key_of_json_that_is_also_a_member_is_kept_beside_it(tmp_path: Path) -> None:
    members = [("1.json", b'{"txt": "x", "id": "a"}'), ("1.txt", b"y"), ("1.id", b"a")]
    write_tar(tmp_path / "a.tar", [("1.png", PNG), *members])
    (row,) = read(open_dataset(tmp_path))
    assert (row["id"], row["text"], row["extra"]["json.txt"]) == ("a", ["y"], "x")


def test_json_that_is_no_object_is_a_column(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("1.png", PNG), ("1.json", b'["a", "b"]')])
    (row,) = read(open_dataset(tmp_path))
    assert row["extra"] == {"json": ["a", "b"]}


def test_a_member_that_is_there_twice_is_one_if_both_are_the_same(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.png", PNG), ("1.txt", b"a"), ("1.txt", b"a")])
    assert read(open_dataset(path))[0]["text"] == ["a"]
    write_tar(path, [("1.png", PNG), ("1.txt", b"a"), ("2.png", PNG), ("1.txt", b"b")])
    assert "two values of one name '1.txt'" in str(read(open_dataset(path))[0]["text_reason"])


def test_a_name_that_is_not_utf8_is_a_key(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("caf\udce9.png", PNG), ("caf\udce9.txt", b"a")])
    (row,) = read(open_dataset(tmp_path))
    assert (row["id"], row["text"]) == ("café", ["a"])


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{i}.png", bytes(600)) for i in range(9)])
    data = bytearray(path.read_bytes())
    data[4 * 1536 : 4 * 1536 + 300] = b"x" * 300
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"a\.tar is not a whole tar"):
        read(open_dataset(path))


def test_a_compressed_tar_that_was_cut_is_named(tmp_path: Path) -> None:
    members = [(f"{i}.png", os.urandom(600)) for i in range(99)]
    path = write_tar(tmp_path / "a.tar.gz", members, "w:gz")
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DatasetError, match=r"a\.tar\.gz is not a whole tar"):
        read(open_dataset(path))


def test_members_of_any_other_suffix_pass_through_beside_the_picture(tmp_path: Path) -> None:
    members = [("a.png", PNG), ("a.txt", b"one"), ("a.npy", b"12"), ("b.png", PNG)]
    write_tar(tmp_path / "a.tar", members)
    dataset = open_dataset(tmp_path)
    Catalog.scan(dataset, tmp_path / "catalog")
    found = [(row["text"], row["extra"]) for row in read(dataset)]
    assert found == [(["one"], {"npy": b"12"}), ([], {"npy": None})]


def test_a_text_called_after_its_picture_with_both_suffixes_is_its_text(tmp_path: Path) -> None:
    members = [("1.jpg", PNG), ("1.jpg.txt", b"a"), ("2.png", PNG), ("2.txt", b"b")]
    write_tar(tmp_path / "a.tar", members)
    assert [row["text"] for row in read(open_dataset(tmp_path))] == [["a"], ["b"]]


def test_a_mark_of_the_byte_order_is_no_part_of_a_text_nor_of_json(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    members = [("a.png", PNG), ("a.txt", mark + b"a hare")]
    write_tar(tmp_path / "a.tar", [*members, ("a.json", mark + b'{"from": "a book"}')])
    (row,) = read(open_dataset(tmp_path))
    assert (row["text"], row["extra"]) == (["a hare"], {"from": "a book"})
