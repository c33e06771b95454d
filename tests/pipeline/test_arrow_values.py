"""What Arrow holds and Parquet does not, through a whole job: another type, or a row that fails alone."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config.config import load_config
from pipeline.dataset.nested import paths_within
from pipeline.job import Job
from tests import quick_worlds

ROWS = 40
FAR = 10**16


def _cycle(values: list, kind: pa.DataType) -> pa.Array:
    return pa.array([values[i % len(values)] for i in range(ROWS)], kind)


def _times(values: list, kind: pa.DataType) -> pa.Array:
    return _cycle(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


def _at(row: int, odd: int) -> list[int]:
    """Ones, but for one row."""
    return [odd if i == row else 1 for i in range(ROWS)]


DAY = 86_400_000
REQUIRED = pa.struct([pa.field("a", pa.int64(), nullable=False)])
NULL_CATEGORY = pa.DictionaryArray.from_arrays(
    pa.array([i % 2 for i in range(ROWS)]), pa.array(["a", None])
)

# What Parquet writes and does not give back, or does not write at all.
COLUMNS = {
    "numbers": _cycle([5, 7, None], pa.int32()).dictionary_encode(),
    "amounts": _cycle([Decimal("1.25"), None], pa.decimal128(9, 2)).dictionary_encode(),
    "lists": pa.DictionaryArray.from_arrays(
        pa.array([i % 2 for i in range(ROWS)]), pa.array([["a"], ["b", None]])
    ),
    "no categories": pa.nulls(ROWS).dictionary_encode(),
    "a null category": NULL_CATEGORY,
    "in a list": pa.ListArray.from_arrays(
        pa.array(range(ROWS + 1), pa.int32()), _cycle([1, 2], pa.int64()).dictionary_encode()
    ),
    "thousands": _cycle([Decimal("1E+3"), None], pa.decimal128(5, -3)),
    "tiny": _cycle([Decimal("1E-10"), None], pa.decimal128(5, 10)),
    "nothing": _cycle([b"", None], pa.binary(0)),
    "no items": _cycle([[], None], pa.list_(pa.int8(), 0)),
    "required": _cycle([{"a": 1}, None], REQUIRED),
}

# Columns in which a row holds what Parquet has no room for.
BAD = {
    "seconds": _times(_at(1, FAR), pa.timestamp("s", "UTC")),
    "listed": pa.ListArray.from_arrays(
        pa.array(range(ROWS + 1), pa.int32()), _times(_at(2, -FAR), pa.timestamp("s"))
    ),
    "days": _times([v * DAY for v in _at(3, 2**33)], pa.date64()),
    "part of a day": _times([v * DAY if v == 1 else v for v in _at(4, DAY + 5)], pa.date64()),
    "clock": _times(_at(5, 90_000), pa.time32("s")),
}


def _table() -> pa.Table:
    given = sorted(quick_worlds.rows(34, 4, 2), key=lambda row: row["id"])
    images = [row["image"] or {"bytes": None, "path": None} for row in given]
    far = _times([FAR], pa.timestamp("us", "Nowhere/Here"))
    # What tells of an image beside its bytes is nothing that Python has.
    image = pa.StructArray.from_arrays(
        [
            pa.array([one["bytes"] for one in images], pa.binary()),
            pa.nulls(ROWS, pa.string()),
            far,
        ],
        names=["bytes", "path", "taken"],
    )
    told = {name: pa.array([row[name] for row in given], pa.string()) for name in ("id", "text")}
    told["said"] = pa.StructArray.from_arrays([told["text"], far], names=["caption", "when"])
    return pa.table({**told, "image": image, **COLUMNS, **BAD})


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("arrow")
    (folder / "data").mkdir()
    table = _table()
    with pa.ipc.new_file(str(folder / "data" / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    formats = ("parquet", "webdataset", "imagefolder", "llava")
    return quick_worlds.run(
        quick_worlds.config(folder, export=[{"format": name} for name in formats])
    )[0]


@pytest.fixture(scope="module")
def rows(job: Job) -> pa.Table:
    """The completed dataset in the order of the file."""
    return job.completed().to_table().sort_by("id")


@pytest.mark.parametrize("name", COLUMNS)
def test_values_arrive_in_a_type_that_parquet_gives_back(rows: pa.Table, name: str) -> None:
    given: list[Any] = COLUMNS[name].to_pylist()
    # Those of rows that could not be read stay too.
    assert rows[name].to_pylist() == given


def test_what_parquet_has_no_room_for_fails_its_row_alone(rows: pa.Table) -> None:

    for row, name in enumerate(BAD, 1):
        reason = f"a row with a value that Parquet can't hold '{name}'"
        assert rows["reason"][row].as_py() == f"image: {reason}; text: {reason}"
        assert rows["status"][row].as_py() == "rejected"
        assert rows[name][row].as_py() is None
        others = rows[name].take(pa.array([i for i in range(ROWS) if i != row]))
        assert others.null_count == 0
    assert rows["status"].to_pylist().count("rejected") == len(BAD)


def test_exports_hold_all_other_rows(job: Job) -> None:
    told = json.loads((job.folder / "exports" / "llava" / "llava.json").read_text())
    assert len(told) == ROWS - len(BAD)
    assert {one["numbers"] for one in told} == {5, 7, None}


def test_paths_within_a_column_are_named_whatever_times_stand_beside_them(job: Job) -> None:
    dataset = Job(load_config(job.config.base / "dmc.yaml")).sources.dataset
    assert paths_within(dataset, "said", "text") == ["said.caption"]
