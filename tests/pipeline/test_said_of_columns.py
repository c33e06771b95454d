"""What a source says of its pass-through columns arrives with them, and what held for its rows alone does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import quick_worlds

CRS = {"type": "GeographicCRS", "name": "WGS 84"}
UNIT = {b"unit": b"m", b"json": b"no mark of ours", b"ARROW:extension:name": b"geoarrow.wkb"}


def write(path: Path, rows: list[dict[str, Any]], west: float, **said: str) -> None:
    column = {"encoding": "WKB", "geometry_types": ["Point"], "crs": CRS, "bbox": [west, 0, 9, 9]}
    geo = {"version": "1.1.0", "primary_column": "place", "columns": {"place": column}}
    kinds = [("id", pa.string()), ("image", quick_worlds.IMAGE), ("text", pa.string())]
    schema = pa.schema(
        [*kinds, pa.field("place", pa.binary(), metadata=UNIT)],
        metadata={"geo": json.dumps(geo), "pandas": "{}", "survey": "of 1999", **said},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    named = [{n: r.get(n) for n in ("id", "image", "text")} | {"place": b"\1"} for r in rows]
    pq.write_table(pa.Table.from_pylist(named, schema=schema), path)


@pytest.mark.parametrize("columns", [None, ["status"]])
def test_metadata_of_columns_and_files_arrives_where_it_holds(
    tmp_path: Path, columns: list[str] | None
) -> None:
    rows = quick_worlds.rows(20, 4, 0)
    write(tmp_path / "data" / "a.parquet", rows[:12], 1.0, author="A")
    write(tmp_path / "data" / "b.parquet", rows[12:], 2.0, author="B")
    export = {"format": "parquet", "columns": columns}
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path, export=[export]))
    parts = [pq.read_schema(path) for path in (job.folder / "completed").glob("*.parquet")]
    exported = [
        pq.read_schema(path)
        for path in (job.folder / "exports" / "parquet" / "data").glob("*.parquet")
    ]
    assert parts and exported
    for schema in parts + exported * (columns is None):
        assert schema.field("place").metadata == UNIT
        told = schema.metadata
        geo = json.loads(told[b"geo"])
        assert geo["columns"]["place"] == {"encoding": "WKB", "geometry_types": [], "crs": CRS}
        assert told[b"survey"] == b"of 1999"
        assert told.keys() == {b"geo", b"survey", b"rag4dmc", b"huggingface"}
    if columns is not None:
        assert all(b"geo" not in schema.metadata for schema in exported)
