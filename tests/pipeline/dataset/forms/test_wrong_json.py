"""JSON that can't be read is named with the place, and is passed over only for what else tells of pictures."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import DatasetError
from pipeline.dataset.overlooked import overlooked
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, read, write_jsonl

ROWS = [{"id": str(n), "image": f"{n}.png", "text": f"hat {n}"} for n in range(3)]
ARRAY = json.dumps(ROWS).encode()
BAD = ARRAY.replace(b"hat 0", b"hat \xff")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.json", BAD, f"not UTF-8 at byte {BAD.index(255)}"),
        ("a.json.gz", gzip.compress(BAD, mtime=0), f"not UTF-8 at byte {BAD.index(255)}"),
        ("a.json", ARRAY[:-9], "line 1, character 136 of the file"),
        (
            "a.json",
            ARRAY.replace(b"}, {", b"},\n{").replace(b": ", b":: ", 4),
            "line 1, character 8 of the file",
        ),
        ("a.json", json.dumps({"0.png": "A"}).encode().replace(b"A", b"\xff"), "at byte 11"),
        ("a.json", ARRAY.decode().encode("utf-16"), "it is UTF-16; write it as UTF-8"),
        ("a.jsonl", b"\n".join(ARRAY.split(b", {")).decode().encode("utf-16"), "it is UTF-16"),
    ],
)
def test_a_table_beside_pictures_is_refused_by_name_and_place(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(PNG)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DatasetError, match=rf"^{re.escape(name)}.*{re.escape(said)}"):
        read(open_dataset(tmp_path))


def test_the_place_counts_from_the_beginning_of_a_large_file(tmp_path: Path) -> None:
    rows = [json.dumps({"id": str(n), "image": f"{n}.png", "text": "x" * 900}) for n in range(3000)]
    text = "[" + ",\n".join(rows) + "]"
    wrong = text.replace('"id": "2900"', '"id": 02900')
    (tmp_path / "a.json").write_text(wrong)
    place = wrong.index("02900") + 2  # what follows the zero is one too many
    with pytest.raises(DatasetError, match=rf"line 2,901, character {place:,} of the file"):
        read(open_dataset(tmp_path))


def test_a_file_of_lines_that_has_one_is_its_row(tmp_path: Path) -> None:
    boxes = [{"box": [0, 1], "label": "hat"}]
    write_jsonl(tmp_path / "a.jsonl", [{"id": "1", "text": "a hat", "objects": boxes}])
    (row,) = read(open_dataset(tmp_path))
    assert (row["id"], json.loads(row["extra"]["objects"])) == ("1", boxes)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize(
    "held",
    [
        {"data": ROWS},
        {"info": "of hats", "rows": ROWS},
        {"images": [{"file_name": row["image"], "caption": row["text"]} for row in ROWS]},
        {row["image"]: row["text"] for row in ROWS},
    ],
)
def test_one_line_that_holds_all_rows_is_read_whatever_it_is_called(
    tmp_path: Path, held: dict[str, object], name: str
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(PNG)
    write_jsonl(tmp_path / name, [held])
    rows = read(open_dataset(tmp_path))
    assert [row["text"] for row in rows] == [[f"hat {n}"] for n in range(3)]
    assert {row["image"]["bytes"] for row in rows} == {PNG}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz", "metadata.jsonl"])
@pytest.mark.parametrize("first", [{}, {"info": {"by": "us"}}, {"info": "x" * (2 << 20)}])
def test_one_line_that_holds_all_rows_may_be_long(
    tmp_path: Path, name: str, first: dict[str, object]
) -> None:
    (tmp_path / "0.png").write_bytes(PNG)
    rows = [{"image": "0.png", "text": "x" * 1000, "id": n} for n in range(1200)]
    held = json.dumps(first | {"data": rows}).encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(held) if name.endswith(".gz") else held)
    assert [row["id"] for row in read(open_dataset(tmp_path))] == [str(n) for n in range(1200)]


def test_a_long_line_that_holds_all_rows_and_has_a_bad_byte_is_refused_by_its_place(
    tmp_path: Path,
) -> None:
    rows = [{"image": "0.png", "text": "x" * 1000, "id": n} for n in range(1200)]
    held = json.dumps({"info": 1, "data": rows}).encode()
    bad = held.replace(b"xxx", b"x\xffx", 1)
    (tmp_path / "a.json").write_bytes(bad)
    with pytest.raises(DatasetError, match=f"^a.json: .* at byte {bad.index(255)}"):
        read(open_dataset(tmp_path))


def test_the_first_line_of_several_that_is_not_json_fails_alone(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in ROWS]
    (tmp_path / "a.jsonl").write_text("\n".join([lines[0][:-9], *lines[1:], ""]))
    assert [row["text"] for row in read(open_dataset(tmp_path))] == [[], ["hat 1"], ["hat 2"]]


@pytest.mark.parametrize("rows", [1, 20])
def test_two_lists_of_captions_are_refused_rather_than_passed_over(
    tmp_path: Path, rows: int
) -> None:
    (tmp_path / "0.png").write_bytes(PNG)
    (tmp_path / "a.json").write_text(json.dumps({"train": ROWS[:1] * rows, "test": ROWS[1:]}))
    with pytest.raises(
        DatasetError, match=r"^a\.json holds more than one list, 'train' and 'test'"
    ):
        read(open_dataset(tmp_path))


def test_a_long_line_of_a_file_of_lines_that_begins_with_a_list_is_its_row(tmp_path: Path) -> None:
    row = {"objects": [{"box": [0, 1]}], "text": "a hat", "other": "x" * (1 << 20)}
    write_jsonl(tmp_path / "a.jsonl", [row | {"id": n} for n in range(2)])
    assert [row["id"] for row in read(open_dataset(tmp_path))] == ["0", "1"]


def _splits(rows: int) -> str:
    files = [{"file": f"{n % 3}.png"} for n in range(rows)]
    return json.dumps({"train": files, "test": files})


@pytest.mark.parametrize("told_by", ["sidecars", "data.json"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("splits.json", _splits(2)),
        ("splits.json", _splits(200)),
        ("config.json", '{\n  // of the page\n  "logo": "logo.png"\n}'),
        ("config.json", '{\n  // of the page\n  "logo": "0.png"\n}'),
        ("0.json", json.dumps({"file": "0.png", "boxes": [{"x": 1}], "regions": [{"y": 2}]})),
    ],
)
def test_json_that_is_no_table_is_named_where_something_else_tells_of_the_pictures(
    tmp_path: Path, name: str, text: str, told_by: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        (data / f"{number}.png").write_bytes(PNG)
        if told_by == "sidecars":
            (data / f"{number}.txt").write_text(f"hat {number}")
    if told_by != "sidecars":
        (data / told_by).write_bytes(ARRAY)
    (data / name).write_text(text)
    dataset = open_dataset(data)
    assert [row["text"] for row in read(dataset)] == [[f"hat {n}"] for n in range(3)]
    told = overlooked(Catalog.scan(dataset, tmp_path / "found"))
    assert told == [f"1 .json file ({name}) is not used"]


@pytest.mark.parametrize("text", [_splits(2), _splits(200), '{\n  // a\n  "logo": "logo.png"\n}'])
def test_json_that_is_no_table_leaves_the_pictures_beside_it(tmp_path: Path, text: str) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(PNG)
    (tmp_path / "a.json").write_text(text)
    assert [row["image"]["bytes"] for row in read(open_dataset(tmp_path))] == [PNG] * 3
