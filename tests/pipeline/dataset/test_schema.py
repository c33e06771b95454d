"""Columns of every type pass through a run, and `datasets` loads what comes out."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.dataset import Dataset, DatasetSettings
from pipeline.export.settings import ExportSettings
from pipeline.report.presentation import export_run
from tests import quick_worlds

WHEN = datetime(2026, 1, 2, 3, 4, 5)
WORDS = pa.dictionary(pa.int32(), pa.string())
COUNTS = pa.map_(pa.string(), pa.int32())

# Types, and a value of each.
VALUES: list[tuple[pa.DataType, Any]] = [
    (pa.bool_(), True),
    *((kind, 7) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())),
    *((kind, 7) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())),
    (pa.float16(), 0.5),
    (pa.float32(), 0.5),
    (pa.float64(), 0.5),
    *((kind, "é") for kind in (pa.string(), pa.large_string(), pa.string_view())),
    *((kind, b"\0a") for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
    (pa.binary(2), b"\0a"),
    (pa.date32(), date(2026, 1, 2)),
    (pa.date64(), date(2026, 1, 2)),
    *((kind, time(3, 4, 5)) for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"))),
    *((pa.timestamp(unit), WHEN) for unit in ("s", "ms", "us")),
    (pa.timestamp("us", "UTC"), WHEN.replace(tzinfo=UTC)),
    *((pa.duration(unit), timedelta(seconds=3)) for unit in ("s", "ms", "us")),
    *((kind, Decimal("1.25")) for kind in (pa.decimal128(10, 2), pa.decimal256(50, 2))),
    (WORDS, "cat"),
    (pa.list_(WORDS), ["cat", "dog"]),
    (pa.list_(pa.date32()), [date(2026, 1, 2), None]),
    (pa.large_list(pa.int8()), [1, 2]),
    (pa.list_(pa.float32(), 3), [0.5, 1.0, 2.0]),
    (pa.list_(pa.list_(pa.float32(), 2)), [[0.5, 1.0]]),
    (pa.struct([("on", pa.date32()), ("kind", WORDS)]), {"on": date(2026, 1, 2), "kind": "cat"}),
    (pa.list_(pa.struct([("at", pa.timestamp("ms"))])), [{"at": WHEN}]),
    (COUNTS, [("a", 1), ("b", None)]),
    (pa.list_(COUNTS), [[("a", 1)], []]),
    (pa.struct([("of", COUNTS)]), {"of": [("a", 1)]}),
    (pa.decimal32(5, 2), Decimal("1.25")),
    (pa.decimal64(10, 2), Decimal("1.25")),
    (pa.uuid(), b"0123456789abcdef"),
    (pa.json_(), '{"a": 1}'),
    (pa.bool8(), 1),
    (pa.fixed_shape_tensor(pa.int8(), [2, 2]), [1, 2, 3, 4]),
]


def _column(kind: pa.DataType, value: Any, rows: int) -> pa.Array:
    """The value in every other row, null in the others."""
    values = [None if row % 2 else value for row in range(rows)]
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


def _expected(value: Any) -> Any:
    """A value as it comes back: of a map its keys and values."""
    if isinstance(value, list):
        return [_expected(each) for each in value]
    if isinstance(value, dict):
        return {name: _expected(each) for name, each in value.items()}
    return dict(zip(("key", "value"), value, strict=True)) if isinstance(value, tuple) else value


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=[str(kind) for kind, _ in VALUES])
def test_a_column_of_any_type_has_a_place_among_the_features_of_datasets(
    tmp_path: Path, kind: pa.DataType, value: Any
) -> None:
    from datasets import Features, Image

    from pipeline.dataset.schema import completed_schema

    table = pa.table({"text": ["a", "b"], "x": _column(kind, value, 2)})
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = Dataset.open(DatasetSettings(path="a.parquet"), tmp_path)
    schema = completed_schema(dataset.text_is_list, dataset.extra_schema)
    pq.write_table(schema.empty_table(), tmp_path / "out.parquet")
    features = Features.from_arrow_schema(pq.read_schema(tmp_path / "out.parquet"))
    assert list(features) == schema.names
    assert isinstance(features["image"], Image)


def test_what_a_run_passes_through_loads_with_every_value(tmp_path: Path) -> None:
    from datasets import load_dataset

    given = quick_worlds.rows(40, 4, 4)
    quick_worlds.write(tmp_path / "data" / "a.parquet", given)
    table = pq.read_table(tmp_path / "data" / "a.parquet")
    for number, (kind, value) in enumerate(VALUES):
        table = table.append_column(f"x{number}", _column(kind, value, len(table)))
    # Words by other numbers in another file, as pandas writes categories.
    words = pa.array(["dog" if row % 2 else "cat" for row in range(len(table))])
    table = table.append_column("word", words.dictionary_encode())
    half = len(table) // 2
    pq.write_table(table.slice(0, half), tmp_path / "data" / "a.parquet", row_group_size=10)
    rest = table.slice(half).drop_columns("word")
    rest = rest.append_column("word", words.slice(half)[::-1].dictionary_encode()[::-1])
    pq.write_table(rest, tmp_path / "data" / "b.parquet", row_group_size=10)
    job, summary = quick_worlds.run(quick_worlds.config(tmp_path))
    assert summary["outcomes"]["completed"] == 8
    export_run(job, ExportSettings())
    for place in ("completed", "exports/parquet/data"):
        files, cache = str(job.folder / place / "*.parquet"), str(tmp_path / "cache")
        loaded = load_dataset("parquet", data_files=files, cache_dir=cache)["train"]
        by_id = {row["id"]: row for row in loaded}
        assert len(by_id) == len(given)
        for row, each in enumerate(given):
            found = by_id[each["id"]]
            assert found["image"].size
            assert found["word"] == ("dog" if row % 2 else "cat")
            for number, (kind, value) in enumerate(VALUES):
                wanted = None if row % 2 else _expected(value)
                assert found[f"x{number}"] == wanted, (kind, place)


def test_names_of_classes_and_further_images_stay_what_they_are_to_datasets(
    tmp_path: Path,
) -> None:
    from datasets import ClassLabel, Features, Image, load_dataset

    path = tmp_path / "data" / "a.parquet"
    quick_worlds.write(path, quick_worlds.rows(34, 3, 3))
    table = pq.read_table(path)
    table = table.append_column("label", pa.array([row % 2 for row in range(len(table))]))
    table = table.append_column("status", table["label"]).append_column("map", table["image"])
    kinds = ClassLabel(names=["cat", "dog"])
    told = Features({"label": kinds, "status": kinds, "map": Image()}).arrow_schema.metadata
    pq.write_table(table.replace_schema_metadata(told), path, row_group_size=8)
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path, export=[{"format": "parquet"}]))
    for place in ("completed", "exports/parquet/data"):
        files, cache = str(job.folder / place / "*.parquet"), str(tmp_path / "cache")
        features = load_dataset("parquet", data_files=files, cache_dir=cache)["train"].features
        assert features["label"] == features["source_status"] == kinds
        assert isinstance(features["map"], Image) and isinstance(features["image"], Image)
