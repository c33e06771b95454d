"""Values come out as they went in, in every form, or the file and the value are named."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import Dataset, DatasetError
from tests.pipeline.dataset.forms.small_files import (
    PNG,
    open_dataset,
    read,
    write_jsonl,
    write_parquet,
)

# More rows than are looked at before a file is read, where `short_head` is in force.
LATE = 350


@pytest.fixture
def short_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are looked at before a file is read."""
    monkeypatch.setattr("pipeline.dataset.forms.json_table.HEAD_ROWS", LATE - 50)


def scan(dataset: Dataset, folder: Path) -> Catalog:
    """Scan a dataset, the findings kept beside its folder."""
    return Catalog.scan(dataset, folder.with_name(f"{folder.name}-runs"))


def column(dataset: Dataset, name: str) -> list[Any]:
    """A pass-through column of a dataset that was scanned, as it is fetched for the output."""
    tables = [
        dataset.fetch(file, range(sum(len(b) for b in dataset.batches(file))))
        for file in dataset.files
    ]
    assert len({table.schema for table in tables}) == 1
    return [row["extra"][name] for table in tables for row in table.to_pylist()]


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(rows: list[dict[str, Any]]) -> list[tuple[str, bytes]]:
    found = []
    for number, row in enumerate(rows):
        found.append((f"{number:04d}.png", PNG))
        found.append((f"{number:04d}.json", json.dumps(row).encode()))
    return found


def write_json(form: str, folder: Path, rows: list[dict[str, Any]]) -> Dataset:
    """Rows as JSON Lines, as JSON in a tar, or as the metadata of an image folder."""
    if form == "webdataset":
        write_tar(folder / "a.tar", samples(rows))
    elif form == "jsonl":
        write_jsonl(folder / "a.jsonl", [{"image": "no.png", **row} for row in rows])
    else:
        (folder / "no.png").write_bytes(PNG)
        write_jsonl(folder / "metadata.jsonl", [{"file_name": "no.png", **row} for row in rows])
    return open_dataset(folder)


# What a column holds, first and late: its type, and what comes out where it is not what went in.
COLUMNS: dict[str, tuple[list[Any], list[Any], pa.DataType, list[Any] | None]] = {
    "whole numbers, then fractions": ([0, 1], [0.52], pa.float64(), None),
    "whole numbers, then 2^53 + 1": ([0, 1], [2**53 + 1], pa.int64(), None),
    "2^53 + 1, then fractions": ([2**53 + 1], [0.5], pa.string(), ["9007199254740993", "0.5"]),
    "beyond 63 bits": ([1], [2**64 - 1], pa.uint64(), None),
    "below zero and beyond 63 bits": ([-1], [2**63], pa.string(), ["-1", "9223372036854775808"]),
    "beyond 64 bits": ([1], [2**70], pa.string(), ["1", "1180591620717411303424"]),
    "truths, then numbers": ([True], [1], pa.string(), ["true", "1"]),
    "truths, then strings": ([True], ["true"], pa.string(), ["true", '"true"']),
    "strings, then numbers": (["1"], [1], pa.string(), ['"1"', "1"]),
    "nothing, then numbers": ([None], [1.5], pa.float64(), None),
    "nothing, then strings": ([None], ["a"], pa.string(), None),
    "nothing, then lists": ([None, []], [["a", None]], pa.list_(pa.string()), None),
    "lists of whole numbers, then fractions": ([[1]], [[0.5]], pa.list_(pa.float64()), None),
    "lists, then strings": ([["a"]], ["a"], pa.string(), ['["a"]', '"a"']),
    "objects with other keys": (
        [{"a": 1}],
        [{"b": {"c": [1, None]}}],
        pa.string(),
        ['{"a": 1}', '{"b": {"c": [1, null]}}'],
    ),
    "objects, then strings": ([{"a": 1}], ["{}"], pa.string(), ['{"a": 1}', '"{}"']),
    "a NUL within": (["a"], ["b\0c"], pa.string(), None),
}


@pytest.mark.parametrize("form", ["webdataset", "jsonl", "imagefolder"])
@pytest.mark.parametrize("case", COLUMNS)
def test_a_json_column_holds_every_value_as_it_came(tmp_path: Path, form: str, case: str) -> None:
    first, late, kind, expected = COLUMNS[case]
    values = [*first, *[first[0]] * 300, *late]
    dataset = write_json(form, tmp_path, [{"text": "a", "value": value} for value in values])
    scan(dataset, tmp_path)
    assert dataset.extra_schema.field("value").type == kind
    found = column(dataset, "value")
    assert [found[0], found[-1]] == (expected or [values[0], values[-1]])
    assert len(found) == len(values)


def test_nan_stays_a_number_and_is_null_among_all_else(tmp_path: Path) -> None:
    nan = float("nan")
    rows = [{"text": "a", "n": 1, "s": "a", "b": True, "l": ["a"], "f": [0.5]}]
    rows += [{"text": nan, "n": nan, "s": nan, "b": nan, "l": nan, "f": [nan]}]
    dataset = write_json("jsonl", tmp_path, rows)
    scan(dataset, tmp_path)
    found = read(dataset)
    assert (found[1]["text"], found[1]["text_reason"]) == ([], "no text in the row")
    extra = found[1]["extra"]
    assert extra["n"] != extra["n"]
    assert extra["f"][0] != extra["f"][0]
    assert (extra["s"], extra["b"], extra["l"]) == (None, None, None)


@pytest.mark.usefixtures("short_head")
@pytest.mark.parametrize("form", ["webdataset", "jsonl", "imagefolder"])
def test_a_key_that_comes_late_is_null_before(tmp_path: Path, form: str) -> None:
    rows: list[dict[str, Any]] = [{"text": "a"}] * LATE + [{"text": "b", "mark": 1}]
    dataset = write_json(form, tmp_path, rows)
    scan(dataset, tmp_path)
    found = column(dataset, "mark")
    assert found == [None] * LATE + [1]


@pytest.mark.usefixtures("short_head")
@pytest.mark.parametrize("form", ["webdataset", "jsonl", "imagefolder"])
@pytest.mark.parametrize("named", [False, True])
def test_captions_whose_key_comes_late_are_captions(tmp_path: Path, form: str, named: bool) -> None:
    rows: list[dict[str, Any]] = [{"mark": 1}] * LATE + [{"caption": "b", "mark": 2}]
    write_json(form, tmp_path, rows)
    columns = {"text": "caption"} if named else {}
    dataset = open_dataset(tmp_path, columns=columns)
    catalog = scan(dataset, tmp_path)
    assert dataset.columns.text == "caption"
    assert catalog.table["text_reason"].null_count == 1
    assert column(dataset, "mark") == [1] * LATE + [2]


def test_a_named_column_that_no_row_has_is_refused_once_all_are_read(tmp_path: Path) -> None:
    write_json("jsonl", tmp_path, [{"text": "a"}, {"text": "b"}])
    dataset = open_dataset(tmp_path, columns={"text": "captoin"})
    with pytest.raises(DatasetError, match="no column 'captoin'; there are"):
        scan(dataset, tmp_path)


@pytest.mark.usefixtures("short_head")
def test_what_a_scan_learned_of_the_columns_holds_for_who_opens_them_next(tmp_path: Path) -> None:
    rows = [{"text": "a", "n": 1}] * LATE + [{"text": ["b", "c"], "n": 0.5}]
    dataset = write_json("jsonl", tmp_path, rows)
    scan(dataset, tmp_path)
    again = Dataset.open(dataset.settings, Path("/"), dataset.learned())
    assert again.text_is_list
    assert again.extra_schema == dataset.extra_schema
    # Found again without reading a row.
    third = Dataset.open(dataset.settings, Path("/"))
    scan(third, tmp_path)
    assert third.schema == dataset.schema


def test_strings_and_lists_of_captions_together_are_lists(tmp_path: Path) -> None:
    texts: list[Any] = ["a", ["b", "c"], None, [], 7, {"en": "d"}, True, [None, "e"]]
    dataset = write_json("jsonl", tmp_path, [{"text": text} for text in texts])
    scan(dataset, tmp_path)
    assert dataset.text_is_list
    found = read(dataset)
    assert [row["text"] for row in found] == [["a"], ["b", "c"], [], [], ["7"], [], [], ["e"]]
    assert found[5]["text_reason"] == "neither a text nor a list of texts"


def test_ids_that_are_numbers_and_strings_are_what_they_say(tmp_path: Path) -> None:
    dataset = write_json("jsonl", tmp_path, [{"id": 7, "text": "a"}, {"id": "b7", "text": "b"}])
    assert [row["id"] for row in read(dataset)] == ["7", "b7"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "a", "text": "b"}', "a row with two values of one name 'text'"),
        ('{"text": "a", "n": {"k": 1, "k": 2}}', "a row with two values of one name 'k'"),
        ('{"text": "a", "\\ud800": 1}', "a row that is not UTF-8 '\\ud800'"),
        ('{"text": "a", "n": {"k": "\\ud800"}}', "a row that is not UTF-8 'n'"),
        ('{"text": "a\\ud83d"}', "a row that is not UTF-8 'text'"),
        ('{"text": "a",', "a row that is not JSON 'Expecting"),
        ('["a"]', """a row that is no object with columns '["a"]'"""),
    ],
)
def test_a_row_of_json_that_can_not_be_read_as_it_is_has_neither_half_and_says_why(
    tmp_path: Path, line: str, said: str
) -> None:
    (tmp_path / "1.png").write_bytes(PNG)
    good = '{"image": "1.png", "text": "ok", "m": 1}\n'
    line = line.replace("{", '{"image": "1.png", "m": 7, ')
    (tmp_path / "a.jsonl").write_text(good + line + "\n" + good)
    first, row, last = read(open_dataset(tmp_path))
    assert (row["text"], row["image"]["bytes"]) == ([], None)
    assert row["text_reason"] == row["image_reason"]
    assert row["text_reason"].startswith(said)
    # What of it is known is as it came.
    assert row["extra"]["m"] == (None if "JSON" in said or "object" in said else 7)
    assert [r["text"] for r in (first, last)] == [["ok"], ["ok"]]


@pytest.mark.parametrize("form", ["webdataset", "jsonl", "imagefolder"])
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        ("0.10", pa.float64()),
        ("0.30000000000000004", pa.float64()),
        ("0.10000000000000001", pa.float64()),  # as C writes 17 digits
        ("0.3333333333333333148296", pa.float64()),  # or more, of a third
        ("0.1234567890123456789", pa.string()),
        ("52.5200065999999999", pa.string()),
        ("1e999", pa.string()),
        ("1e-999", pa.string()),
    ],
)
def test_a_number_that_no_double_is_stays_as_it_is_written(
    tmp_path: Path, form: str, number: str, kind: pa.DataType
) -> None:
    lines = [f'{{"file_name": "no.png", "text": "a", "n": {n}}}' for n in (number, "0.5")]
    if form == "webdataset":
        members = [(f"{n}.json", line.encode()) for n, line in enumerate(lines)]
        write_tar(tmp_path / "a.tar", [*members, ("0.png", PNG), ("1.png", PNG)])
    else:
        (tmp_path / "no.png").write_bytes(PNG)
        name = {"jsonl": "a.jsonl", "imagefolder": "metadata.jsonl"}[form]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    dataset = open_dataset(tmp_path)
    scan(dataset, tmp_path)
    assert dataset.extra_schema.field("n").type == kind
    text = kind == pa.string()
    assert column(dataset, "n") == [number if text else float(number), "0.5" if text else 0.5]


def test_digits_within_objects_and_in_ids_and_captions_stay_too(tmp_path: Path) -> None:
    long = "0.12345678901234567890123"
    line = f'{{"id": {long}, "text": {long}, "meta": {{"a": [{long}, 1.5, "é"], "b": null}}}}\n'
    (tmp_path / "a.jsonl").write_text(line + '{"id": "b", "text": "x", "meta": {}}\n')
    first, second = read(open_dataset(tmp_path))
    assert (first["id"], first["text"]) == (long, [long])
    assert first["extra"]["meta"] == f'{{"a": [{long}, 1.5, "é"], "b": null}}'
    assert second["extra"]["meta"] == "{}"


def test_a_byte_order_mark_and_windows_line_ends_belong_to_no_value(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "a", "text": "x"}\r\n')
    assert read(open_dataset(tmp_path))[0]["text"] == ["x"]
    (tmp_path / "b.csv").write_bytes(b'\xef\xbb\xbfid,text\r\na,"x\r\ny"\r\n')
    assert read(open_dataset(tmp_path / "b.csv"))[0]["text"] == ["x\r\ny"]


@pytest.mark.parametrize("first", ["text", "caption"])
def test_captions_under_another_name_in_a_second_file_are_no_pass_through_column(
    tmp_path: Path, first: str
) -> None:
    second = {"text": "caption", "caption": "text"}[first]
    write_jsonl(tmp_path / "a.jsonl", [{"image": "1.png", first: "a", "title": "t"}])
    write_jsonl(tmp_path / "b.jsonl", [{"image": "1.png", second: "b", "title": "t"}])
    with pytest.raises(DatasetError, match=r"has no column .*; give all files the same columns"):
        scan(open_dataset(tmp_path), tmp_path)
    told = scan(open_dataset(tmp_path, columns={"text": first}), tmp_path)
    assert told.counts()["text"] + told.counts()["both"] == 1


def test_a_file_without_captions_is_one(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"image": "1.png", "text": "a", "title": "t"}])
    write_jsonl(tmp_path / "b.jsonl", [{"image": "1.png", "title": "t"}])
    dataset = open_dataset(tmp_path)
    assert scan(dataset, tmp_path).table["text_reason"].null_count == 1
    assert column(dataset, "title") == ["t", "t"]


def test_a_category_column_of_pictures_is_one_of_images(tmp_path: Path) -> None:
    image = pa.array([PNG, None, PNG]).dictionary_encode()
    write_parquet(tmp_path / "a.parquet", image=image, text=["a", "b", "c"])
    assert [row["image"]["bytes"] for row in read(open_dataset(tmp_path))] == [PNG, None, PNG]
