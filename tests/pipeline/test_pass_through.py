"""Pass-through columns through a whole job: what arrives is what came, in every layout."""

from __future__ import annotations

import json
import tarfile
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds

# The year 10000, and one that no string of Arrow's has.
FAR, FARTHER = 253_402_300_800, 10**15
ROWS = 40


def _columns() -> dict[str, pa.Array]:
    def cycle(values: list, kind: pa.DataType) -> pa.Array:
        return pa.array([values[i % len(values)] for i in range(ROWS)], kind)

    days = pa.struct([("day", pa.date32()), ("times", pa.list_(pa.timestamp("ms")))])
    return {
        "when": cycle([FAR * 1000, -FAR * 2000, None], pa.timestamp("ms")),
        "zone": cycle([1, FAR * 10**6, None], pa.timestamp("us", "Europe/Berlin")),
        # A zone that no database knows by this name, and a time that none shows in 64 bits.
        "strange zone": cycle([1, None], pa.timestamp("us", "utc")),
        "last": cycle([2**63 - 1, -(2**62)], pa.timestamp("us", "Asia/Tokyo")),
        "day": cycle([2**30, -(2**30), 0], pa.date32()),
        "took": cycle([2**62 + 1, 1], pa.duration("ns")),
        "nanoseconds": cycle([1, 10**18 + 1], pa.timestamp("ns")),
        "clock": cycle([86_399_999_999_999, 0], pa.time64("ns")),
        "amount": cycle([Decimal("12345678901234567890.12"), None], pa.decimal128(38, 2)),
        "large": cycle([2**64 - 1, 2**53 + 1], pa.uint64()),
        "nested": cycle([{"day": 2**30, "times": [FARTHER * 1000, None]}, None], days),
        "kind": cycle(["a", "b", None], pa.string()).dictionary_encode(),
        "half": cycle([0.5, 0.25], pa.float16()),
    }


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("values")
    rows = quick_worlds.rows(34, 4, 2)
    path = folder / "data" / "a.parquet"
    quick_worlds.write(path, rows)
    table = pq.read_table(path)
    for name, column in _columns().items():
        table = table.append_column(name, column)
    pq.write_table(table.slice(0, 20), path, row_group_size=8)
    pq.write_table(table.slice(20), path.with_name("b.parquet"), row_group_size=8)
    formats = ("parquet", "webdataset", "imagefolder", "llava", "open_clip")
    return quick_worlds.run(
        quick_worlds.config(
            folder,
            captioner={"kind": "nearest"},
            image_generator={"kind": "nearest"},
            export=[{"format": name} for name in formats],
        )
    )[0]


def test_columns_of_any_type_arrive_as_they_came(job: Job) -> None:
    given = pa.concat_tables(
        [pq.read_table(job.config.base / "data" / f"{n}.parquet") for n in "ab"]
    ).sort_by("id")
    for found in (
        job.completed().to_table().sort_by("id"),
        pq.read_table(job.folder / "exports" / "parquet" / "data").sort_by("id"),
    ):
        for name, column in _columns().items():
            assert found.schema.field(name).type == column.type, name
            assert found[name].combine_chunks().equals(given[name].combine_chunks()), name


def test_layouts_in_json_say_the_same_of_every_value(job: Job) -> None:
    folder = job.folder / "exports"
    by_layout = [{row["id"]: row for row in json.loads((folder / "llava/llava.json").read_text())}]
    with tarfile.open(folder / "webdataset" / "00000.tar") as tar:
        members = [tar.extractfile(m) for m in tar if m.name.endswith(".json")]
        records = [json.loads(member.read()) for member in members if member]
    by_layout.append({row["id"]: row for row in records})
    given = pq.read_table(job.config.base / "data" / "a.parquet")
    first, second = given["id"].to_pylist()[:2]
    for rows in by_layout:
        row, other = rows[first], rows[second]
        assert row["when"] == "10000-01-01T00:00:00"
        assert row["zone"] == "1970-01-01T01:00:00.000001+01:00"
        assert row["strange zone"] == "1970-01-01T00:00:00.000001+00:00"
        assert row["last"] == "294247-01-10T04:00:54.775807+00:00"
        assert row["took"] == "4611686018.427387905"
        assert row["nanoseconds"] == "1970-01-01T00:00:00.000000001"
        assert row["clock"] == "23:59:59.999999999"
        assert row["amount"] == "12345678901234567890.12"
        assert row["large"] == 2**64 - 1
        assert row["nested"]["times"] == ["31690708-07-05T01:46:40", None]
        assert (row["kind"], row["half"]) == ("a", 0.5)
        assert (other["nested"], other["amount"], other["kind"]) == (None, None, "b")


def test_an_image_folder_has_what_datasets_reads_and_the_rest_as_text(
    job: Job, tmp_path: Path
) -> None:
    from datasets import load_dataset

    given = pq.read_table(job.config.base / "data" / "a.parquet")
    first = given["id"][0].as_py()
    folder = job.folder / "exports" / "imagefolder"
    rows = load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path))["train"]
    (row,) = (row for row in rows if row["id"] == first)
    kinds = {"amount": "decimal128(38, 2)", "half": "float16", "kind": "string"}
    assert {name: rows.features[name].dtype for name in kinds} == kinds
    assert (row["amount"], row["half"]) == (Decimal("12345678901234567890.12"), 0.5)
    assert row["when"] == "10000-01-01T00:00:00"
    assert row["nanoseconds"] == "1970-01-01T00:00:00.000000001"
    assert row["large"] == str(2**64 - 1)
    assert json.loads(row["nested"])["times"] == ["31690708-07-05T01:46:40", None]
    assert "Values of clock, day, large, last, nanoseconds" in (folder / "README.md").read_text()


def test_rows_whose_values_stay_are_not_written_again(job: Job, tmp_path: Path) -> None:
    before = sorted(path.name for path in job.ledger.files())
    again, summary = quick_worlds.run(job.config)
    assert sorted(path.name for path in again.ledger.files()) == before
    assert summary["built"] is False


def test_a_file_that_comes_later_widens_the_columns_of_what_stands(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def add(name: str, numbers: range, **columns: object) -> None:
        lines = []
        for number in numbers:
            row = quick_worlds.row(number, "text" if number % 10 == 3 else None)
            (data / f"{number}.png").write_bytes(row["image"]["bytes"])
            told = {"id": row["id"], "image": f"{number}.png", "text": row["text"], **columns}
            lines.append(json.dumps(told))
        (data / name).write_text("\n".join(lines), encoding="utf-8")

    data.mkdir()
    add("a.jsonl", range(40), n=0, s="a")
    run = {"shard_size": 8, "block_size": 4, "max_deleted_share": 1.0}
    config = quick_worlds.config(tmp_path, run=run)
    quick_worlds.run(config)
    add("b.jsonl", range(40, 50), n=0.5, s=1, late=True)
    second, summary = quick_worlds.run(config)
    assert summary["outcomes"] == {"observed": 45, "completed": 5, "rejected": 0, "failed": 0}
    table = second.completed().to_table().sort_by("id")
    assert table["n"].to_pylist() == [0.0] * 40 + [0.5] * 10
    assert table["s"].to_pylist() == ['"a"'] * 40 + ["1"] * 10
    assert table["late"].to_pylist() == [None] * 40 + [True] * 10
    # Whoever opens the run next knows the columns without reading the rows.
    assert Job(load_config(config)).completed().schema == table.schema
    (data / "b.jsonl").unlink()
    third, _ = quick_worlds.run(config)
    assert third.completed().schema.field("n").type == pa.int64()
    assert third.completed().to_table()["s"].to_pylist() == ["a"] * 40
