"""A dataset of squares with a small external one beside it, and what is done with both."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds

ROWS = quick_worlds.rows(60, 3, 3)
WHOLE = [row["id"] for row in ROWS if row["image"] and row["text"]]


def write(folder: Path) -> Path:
    """Write both with a config; its path."""
    quick_worlds.write(folder / "data" / "a.parquet", ROWS)
    quick_worlds.write(
        folder / "more" / "b.parquet",
        [quick_worlds.row(number) | {"id": f"web {number}"} for number in range(100, 140)],
    )
    return quick_worlds.config(folder, external=[{"name": "web", "path": "more"}])


def build(config: Path) -> tuple[Job, bool]:
    job = Job(load_config(config))
    with job.lock():
        job.begin()
        return job, job.build()


def grown(config: Path, extra: int, gone: int = 0) -> None:
    more = [quick_worlds.row(200 + number) for number in range(extra)]
    left = [row for row in ROWS if row["id"] not in WHOLE[:gone]]
    quick_worlds.write(config.parent / "data" / "a.parquet", [*left, *more])


def fitted(job: Job) -> dict[str, bytes]:
    folder = job.folder / "kb"
    return {p.name: p.read_bytes() for n in ("mapping", "filter") for p in (folder / n).iterdir()}
