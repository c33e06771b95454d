"""Arrow types: files whose types differ in size alone, many categories, and what Parquet can't keep."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.dataset import DatasetError
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
