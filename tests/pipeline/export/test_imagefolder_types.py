"""An exported image folder has dates, bytes and texts that look like dates as they came."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.dataset.schema import completed_schema, with_features
from pipeline.export.export import export
from pipeline.export.settings import ExportSettings
from tests.pipeline.export.completed_rows import image_bytes

DAY = datetime.date(2020, 1, 2)
WHEN = datetime.datetime(2020, 1, 2, 3, 4, 5, 6)
HELD = {
    "day": DAY,
    "when": WHEN,
    "days": [DAY, None],
    "raw": b"\xff\x00",
    "look": "2020-01-02",
    "class": 1,
    "part": {"day": DAY, "mask_file_name": "m.png"},
}
KINDS = pa.schema(
    [
        ("day", pa.date32()),
        ("when", pa.timestamp("us")),
        ("days", pa.list_(pa.date32())),
        ("raw", pa.binary()),
        ("look", pa.string()),
        ("class", pa.int64()),
        ("part", pa.struct([("day", pa.date32()), ("mask_file_name", pa.string())])),
    ]
)
NAMES = {"class": {"names": ["Image", "dog"], "_type": "ClassLabel"}}


def test_what_files_and_columns_say_of_themselves_arrives(tmp_path: Path) -> None:
    unit = {b"unit": b"m"}
    geo = {"version": "1.1.0", "primary_column": "place"}
    geo["columns"] = {"place": {"encoding": "WKB", "geometry_types": []}}
    kinds = pa.schema(
        [pa.field("place", pa.binary(), metadata=unit)],
        metadata={"geo": json.dumps(geo), "survey": "of 1999"},
    )
    schema = completed_schema(False, kinds)
    row = {"id": "1", "image": {"bytes": image_bytes(0)}, "text": "a", "place": b"\1"}
    pq.write_table(
        pa.Table.from_pylist([row | {"status": "observed"}], schema=schema), tmp_path / "a.parquet"
    )
    completed = ds.dataset([str(tmp_path / "a.parquet")], schema=schema)
    export(completed, tmp_path / "out", ExportSettings(format="imagefolder"))
    found = pq.read_schema(tmp_path / "out" / "metadata.parquet")
    assert found.field("place").metadata == unit
    assert found.metadata.keys() == {b"geo", b"survey"}
    assert json.loads(found.metadata[b"geo"]) == geo


def test_values_of_columns_are_the_same_by_datasets_and_by_ourselves(tmp_path: Path) -> None:
    from datasets import load_dataset

    from pipeline.dataset.dataset import Dataset, DatasetSettings

    schema = completed_schema(False, with_features(KINDS, NAMES))
    row = {"id": "2021-02-03", "image": {"bytes": image_bytes(0)}, "text": "2020-05-06"}
    rows = [row | HELD | {"status": "observed"}, row | {"id": "none", "status": "observed"}]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "part-0.parquet")
    completed = ds.dataset([str(tmp_path / "part-0.parquet")], schema=schema)
    out = tmp_path / "out"
    export(completed, out, ExportSettings(format="imagefolder"))
    expected = HELD | {"part": {"day": DAY, "mask_file_name_in_source": "m.png"}}
    loaded = load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
    found = loaded["train"]
    assert {name: found[0][name] for name in HELD} == expected
    assert (found[0]["id"], found[0]["text"]) == ("2021-02-03", "2020-05-06")
    assert found.features["class"].names == ["Image", "dog"]
    assert all(found[1][name] is None for name in ("day", "when", "days", "raw", "look"))
    dataset = Dataset.open(DatasetSettings(path="out"), tmp_path)
    (own, _) = (r for f in dataset.files for b in dataset.batches(f) for r in b.to_pylist())
    assert (own["id"], own["text"]) == ("2021-02-03", ["2020-05-06"])
    assert {name: own["extra"][name] for name in HELD} == expected
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == [
        ".export.json",
        "README.md",
        "metadata.parquet",
    ]
