"""Arrow types: files whose types differ in size alone, many categories, and what Parquet can't keep."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.dataset import DatasetError
from pipeline.dataset.schema import features_of, with_features
from tests import quick_worlds
from tests.pipeline.dataset.forms.small_files import open_dataset, read


def write_two(folder: Path, first: pa.Array, second: pa.Array) -> None:
    for name, values in (("a", first), ("b", second)):
        table = pa.table({"text": [name] * len(values), "x": values})
        pq.write_table(table, folder / f"{name}.parquet")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([[1, 2]], pa.list_(pa.int64(), 2)), pa.array([[1, 2, 3]])),
        (
            pa.array([[1, 2]], pa.list_(pa.int64(), 2)),
            pa.array([[1, 2, 3]], pa.list_(pa.int64(), 3)),
        ),
        (pa.array([b"ab"], pa.binary(2)), pa.array([b"abc"])),
        (pa.array([[b"ab"]], pa.list_(pa.binary(2))), pa.array([[b"abc"]], pa.list_(pa.binary(3)))),
    ],
)
def test_values_of_another_size_than_the_first_files_are_named(
    tmp_path: Path, first: pa.Array, second: pa.Array
) -> None:
    write_two(tmp_path, first, second)
    with pytest.raises(DatasetError, match=r"column 'x' is .* in b\.parquet but .* in a\.parquet"):
        read(open_dataset(tmp_path))


def test_categories_of_all_files_may_be_more_than_the_keys_of_one(tmp_path: Path) -> None:
    few = pa.dictionary(pa.int8(), pa.string())
    halves = [[str(n) for n in range(start, start + 100)] for start in (0, 100)]
    write_two(tmp_path, *(pa.array(half).cast(few) for half in halves))
    dataset = open_dataset(tmp_path)
    tables = [dataset.fetch(file, range(100)) for file in dataset.files]
    together = pa.concat_tables(tables).combine_chunks()
    assert [row["extra"]["x"] for row in together.to_pylist()] == halves[0] + halves[1]
    pq.write_table(together, tmp_path / "out.pq")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1], None, [2, 3]], pa.list_view(pa.int32())),
        pa.RunEndEncodedArray.from_arrays([1, 3], ["q", "r"]),
        pa.array([(1, 2, 3)] * 3, pa.month_day_nano_interval()),
        pa.array([{}] * 3, pa.struct([])),
        pa.array([[{}]] * 3, pa.list_(pa.struct([]))),
    ],
    ids=lambda values: str(values.type)[:12],
)
def test_what_parquet_can_not_keep_is_named_before_the_start(
    tmp_path: Path, values: pa.Array
) -> None:
    table = pa.table({"text": ["a", "b", "c"], "x": values})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
        file.write_table(table)
    with pytest.raises(DatasetError, match=r"column 'x' is .* which Parquet can't keep"):
        open_dataset(tmp_path)


# Types of a column in a first and in a second file, and the one that holds both.
WIDENED = [
    (pa.int32(), pa.int64(), pa.int64()),
    (pa.int64(), pa.float64(), pa.float64()),
    (pa.float32(), pa.int8(), pa.float64()),
    (pa.uint8(), pa.int8(), pa.int16()),
    (pa.uint32(), pa.int8(), pa.int64()),
    (pa.float16(), pa.float32(), pa.float32()),
    (pa.null(), pa.int64(), pa.int64()),
    (pa.string(), pa.large_string(), None),
    (pa.decimal128(5, 2), pa.decimal128(7, 1), pa.decimal128(8, 2)),
    (pa.timestamp("s", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
    (pa.list_(pa.int32()), pa.list_(pa.float64()), pa.list_(pa.float64())),
    (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_(pa.int64())),
    (pa.list_(pa.int8(), 2), pa.list_(pa.int16(), 2), pa.list_(pa.int16(), 2)),
    (
        pa.struct([("a", pa.int32()), ("b", pa.null())]),
        pa.struct([("b", pa.string()), ("a", pa.float32())]),
        pa.struct([("a", pa.float64()), ("b", pa.string())]),
    ),
]


def values_of(kind: pa.DataType) -> list[Any]:
    if pa.types.is_struct(kind):
        inner = [values_of(field.type) for field in kind]
        names = [field.name for field in kind]
        return [None, *(dict(zip(names, row, strict=True)) for row in zip(*inner, strict=True))]
    if pa.types.is_fixed_size_list(kind):
        return [[1, None], None, [2, 3]]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [values_of(kind.value_type), None, []]
    if pa.types.is_null(kind):
        return [None] * 3
    if pa.types.is_decimal(kind):
        return [Decimal("1.5"), None, Decimal("-100")]
    if pa.types.is_timestamp(kind):
        return [datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), None, None]
    return ["a", None, ""] if kind in (pa.string(), pa.large_string()) else [1, None, 100]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("one", "other", "both"), WIDENED, ids=str)
def test_columns_of_several_types_are_of_the_one_that_holds_all_values(
    tmp_path: Path, one: pa.DataType, other: pa.DataType, both: pa.DataType, turned: bool, form: str
) -> None:
    kinds = (other, one) if turned else (one, other)
    for name, kind in zip("ab", kinds, strict=True):
        values = values_of(kind)
        table = pa.table({"text": [name] * len(values), "x": pa.array(values, kind)})
        if form == "parquet":
            pq.write_table(table, tmp_path / f"{name}.parquet")
        else:
            with pa.ipc.new_file(tmp_path / f"{name}.arrow", table.schema) as file:
                file.write_table(table)
    dataset = open_dataset(tmp_path)
    found = dataset.extra_schema.field("x").type
    assert turned or found == (both or one)
    for file, kind in zip(dataset.files, kinds, strict=True):
        count = len(values_of(kind))
        rows = dataset.fetch(file, range(count)).to_pylist()
        assert [row["extra"]["x"] for row in rows] == values_of(kind)


def test_a_value_that_the_wider_type_would_change_is_named(tmp_path: Path) -> None:
    write_two(tmp_path, pa.array([0.5]), pa.array([2**53 + 1]))
    dataset = open_dataset(tmp_path)
    with pytest.raises(DatasetError, match=r"'x' is int64 in b\.parquet and double in other files"):
        read(dataset)


def test_files_of_several_types_are_completed_to_one_schema_with_their_values(
    tmp_path: Path,
) -> None:
    rows = quick_worlds.rows(36, 2, 2)
    for name, part, kind in (("a", rows[:20], pa.int32()), ("b", rows[20:], pa.float64())):
        quick_worlds.write(tmp_path / "data" / f"{name}.parquet", part)
        table = pq.read_table(tmp_path / "data" / f"{name}.parquet")
        numbers = pa.array(range(len(part)), kind)
        pq.write_table(table.append_column("n", numbers), tmp_path / "data" / f"{name}.parquet")
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path))
    found = {each["id"]: each["n"] for each in quick_worlds.completed(job).values()}
    given = [row["id"] for row in rows]
    assert found == dict(zip(given, [*range(20), *range(20)], strict=True))
    assert {pq.read_schema(p).field("n").type for p in job.ledger.files()} == {pa.float64()}


@pytest.mark.parametrize("theirs", [["dog", "cat"], ["cat", "dog"]])
def test_what_files_say_differently_of_a_column_is_said_of_none(
    tmp_path: Path, theirs: list[str]
) -> None:
    for name, unit, classes in (("a", "m", ["cat", "dog"]), ("b", "ft", theirs)):
        field = pa.field("h", pa.int64(), metadata={"unit": unit, "axis": "up"})
        schema = pa.schema([("text", pa.string()), field, ("kind", pa.int64())])
        told = {"kind": {"names": classes, "_type": "ClassLabel"}}
        table = pa.table({"text": [name], "h": [1], "kind": [0]}, with_features(schema, told))
        pq.write_table(table, tmp_path / f"{name}.parquet")
    found = open_dataset(tmp_path).extra_schema
    assert found.field("h").metadata == {b"axis": b"up"}
    same = {"kind": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    assert features_of(found) == (same if theirs == ["cat", "dog"] else {})
