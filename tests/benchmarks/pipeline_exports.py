"""Exports and the report after a small change: what they cost beside making them anew.

    python -m tests.benchmarks.pipeline_exports [--rows N] [--folder DIR]

A completed dataset of parts of 256 rows, half of them with a generated image of four candidates, is
exported and reported; then 1,000 rows come in parts of their own, as a nightly run leaves them, and
the same is done again, each step in a process of its own. The other side is the same
export made with none standing. `best` keeps half of the generated images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.schema import completed_schema
from tests import quick_worlds

PART, NEW = 256, 1000
SETTINGS: dict[str, dict[str, Any]] = {
    "parquet": {"format": "parquet"},
    "webdataset": {"format": "webdataset"},
    "parquet, best": {"format": "parquet", "best": {"image": 0.5}},
}
STEP = """
import json, resource, sys, time
from pathlib import Path
import pyarrow.dataset as ds
from pipeline.dataset.schema import completed_schema
parts = sorted(Path(sys.argv[1]).glob("*.parquet"))
started, used = time.monotonic(), time.process_time()
told = {}
if sys.argv[3] == "report":
    from pipeline.report import completed_rows, write_report
    write_report(sys.argv[2], completed_rows(parts), {})
else:
    from pipeline.export.export import export
    from pipeline.export.settings import ExportSettings
    completed = ds.dataset(list(map(str, parts)), schema=completed_schema(False), format="parquet")
    done = export(completed, Path(sys.argv[2]), ExportSettings(**json.loads(sys.argv[3])))
    told = {"files written": done.written, "files taken over": done.taken_over}
print(json.dumps({
    "wall s": round(time.monotonic() - started, 1),
    "processor s": round(time.process_time() - used, 1),
    "peak MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
} | told))
"""


def write_parts(folder: Path, first: int, count: int, part: int) -> int:
    """Write rows from a number on in parts; the number of the next part."""
    folder.mkdir(exist_ok=True)
    schema = completed_schema(False)
    image = quick_worlds.row(0)["image"]
    generator = np.random.default_rng(first)
    number = len(list(folder.iterdir()))
    for start in range(first, first + count, part):
        rows = []
        for place in range(start, min(start + part, first + count)):
            made = place % 2 == 0
            scores = generator.normal(0.3, 0.1, 4)
            candidates = [
                {"seed": n, "attempt": 1, "cosine": float(s), "niqe": 4.0, "score": float(s)}
                | {"valid": True, "notes": []}
                for n, s in enumerate(scores)
            ]
            completion = {
                "generator": "sdxl",
                "model": "m",
                "revision": "0123",
                "prompt": f"a red square of size {place}",
                "attempt": 1,
                "examples": [{"id": "web/1", "source": "web", "licence": "CC0"}],
                "candidates": candidates,
                "chosen": int(scores.argmax()),
                "score": float(scores.max()),
            }
            rows.append(
                {
                    "id": f"row {place:08d}",
                    "image": image,
                    "text": f"a red square of size {place}",
                    "status": "completed" if made else "observed",
                    "missing": "image" if made else None,
                    "reason": "null" if made else None,
                    "completion": completion if made else None,
                }
            )
        number += 1
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, folder / f"part-{number:06d}.parquet", compression="zstd")
    return number


def step(folder: Path, target: Path, what: str) -> dict[str, Any]:
    """An export or the report, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-c", STEP, str(folder / "completed"), str(target), what],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Both sides of each export, and the report."""
    write_parts(folder / "completed", 0, count, PART)
    settings = {name: json.dumps(values) for name, values in SETTINGS.items()}
    found: dict[str, Any] = {"rows": count, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    for name, values in settings.items():
        found[name] = {"anew": step(folder, folder / name, values)}
    write_parts(folder / "completed", count, NEW, PART)
    for name, values in settings.items():
        started = time.time()
        found[name]["1,000 rows more"] = step(folder, folder / name, values)
        files = [path for path in (folder / name).rglob("*") if path.is_file()]
        written = [path for path in files if path.stat().st_mtime >= started]
        found[name]["bytes"] = sum(path.stat().st_size for path in files)
        found[name]["bytes written"] = sum(path.stat().st_size for path in written)
    found["report"] = step(folder, folder / "report.html", "report")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="an empty folder; a temporary one if left out")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        print(json.dumps(measure(folder, asked.rows), indent=1))


if __name__ == "__main__":
    main()
