"""A rerun with nothing new: how long it takes, what it writes, and what it loads.

    python -m tests.benchmarks.pipeline_rerun [--full] [--folder DIR]

The input is Parquet files of small rows. A first, real run with `--limit 0` builds the knowledge base
and passes the complete rows through; the shards of all other rows are then written as a run writes
them (parts and manifests of the same classes), but with one small picture instead of a generator's.
The rerun is `rag4dmc run` in a process of its own. Yardstick: pyarrow reading the column of ids of
the input and of the completed dataset, in a process of its own as well.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.config import load_config
from pipeline.dataset.schema import completed_schema
from pipeline.job import Job
from pipeline.ledger.compaction import layout_of
from pipeline.ledger.ledger import Manifest, entry_table, part_name, shard_name
from pipeline.ledger.plan import ShardPlan
from tests import quick_worlds

PAIRS = 200
FILES = 100
YARDSTICK = """
import sys, glob, pyarrow.parquet as pq
files = glob.glob(sys.argv[1] + "/data/*") + glob.glob(sys.argv[1] + "/runs/quick/completed/*")
print(sum(len(pq.read_table(path, columns=["id"])) for path in files))
"""


def make(folder: Path, count: int) -> Path:
    """The input and its config: `PAIRS` complete rows, and texts without an image."""
    pairs = [quick_worlds.row(number) for number in range(PAIRS)]
    quick_worlds.write(folder / "data" / "pairs.parquet", pairs)
    texts = count - PAIRS
    for file in range(FILES):
        numbers = range(file * texts // FILES, (file + 1) * texts // FILES)
        rows = pa.table(
            {
                "id": [f"text {number:08d}" for number in numbers],
                "image": pa.nulls(len(numbers), quick_worlds.IMAGE),
                "text": [f"a red square of size {number}" for number in numbers],
                "note": [f"note {number}" for number in numbers],
            }
        )
        pq.write_table(rows, folder / "data" / f"texts-{file:04d}.parquet")
    # Its rows are made up: there is nothing to check.
    return quick_worlds.config(folder, run={"shard_size": 256, "check": 0})


def finish(config: Path) -> int:
    """Write every pending shard as if its rows had been completed; how many."""
    job = Job(load_config(config))
    schema = completed_schema(job.sources.dataset.text_is_list, job.sources.dataset.extra_schema)
    image = quick_worlds.row(0)["image"]
    with job.lock():
        job.begin()
        plan = job.plan()
        for shard in plan.shards:
            _write(job, shard, schema, image)
    return len(plan.shards)


def _write(job: Job, shard: ShardPlan, schema: pa.Schema, image: dict[str, Any]) -> None:
    rows = [
        {"id": entry.id, "image": image, "text": "a", "status": "completed", "missing": "image"}
        for entry in shard.entries
    ]
    path = job.ledger.parts / part_name(shard.number)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")
    entries = entry_table(shard.entries)
    status = pa.array(["completed"] * len(entries))
    entries = entries.set_column(entries.schema.get_field_index("status"), "status", status)
    manifest = Manifest(
        shard=shard_name(shard.number),
        part=path.name,
        size=path.stat().st_size,
        run_id=shard.run_id,
        settings=shard.settings,
        layout=layout_of(schema),
        rows=entries,
    )
    text = manifest.dump()  # not flushed to disk one by one: that is not what is measured
    (job.ledger.folder / f"{manifest.shard}.json").write_text(text, encoding="utf-8")


def timed(command: list[str]) -> dict[str, float]:
    """Run a command; wall and processor seconds, and its largest memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall s": round(wall, 2),
        "processor s": round(used, 2),
        "peak MB": round(after.ru_maxrss / 1024),
    }


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of the run but the lock."""
    found = {}
    for path in (folder / "runs").rglob("*"):
        if path.is_file() and path.name != "lock":
            status = path.stat()
            found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def loaded(config: Path) -> list[str]:
    """Model libraries that a rerun loads, without Prefect around it."""
    code = (
        "import sys; from pathlib import Path; from tests.quick_worlds import run;"
        f"run(Path({str(config)!r}));"
        "print(sorted({'torch', 'diffusers', 'transformers', 'open_clip'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return list(json.loads(answer.stdout.splitlines()[-1].replace("'", '"')))


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Make the world and measure the rerun beside the yardstick."""
    config = make(folder, count)
    command = [sys.executable, "-m", "flows.cli", "run", str(config)]
    first = timed([*command, "--limit", "0"])
    shards = finish(config)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # the report of all that
    before = files(folder)
    rerun = timed(command)
    written = sorted(set(files(folder).items()) ^ set(before.items()))
    # Getrusage keeps the largest memory of all children: the yardstick's is below it.
    yardstick = timed([sys.executable, "-c", YARDSTICK, str(folder)])
    del yardstick["peak MB"]
    return {
        "rows": count,
        "shards": shards,
        "first run, --limit 0": first,
        "rerun": rerun,
        "yardstick": yardstick,
        "written": [path for path, _ in written],
        "loaded": loaded(config),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="1,000,000 rows instead of 20,000")
    parser.add_argument("--folder", type=Path, help="an empty folder; a temporary one if left out")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        print(json.dumps(measure(folder, 1_000_000 if asked.full else 20_000), indent=1))


if __name__ == "__main__":
    main()
