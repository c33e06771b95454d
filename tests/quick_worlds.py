"""Datasets of coloured squares, configs of the quick parts, and runs, for tests of many runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.config.config import Config, load_config
from pipeline.job import Job
from pipeline.report.presentation import present
from tests.calls import calls
from tests.quick_parts import COLOURS, picture

# Leaves it to be measured how pairs are retrieved.
UNDECIDED = {"mapping": {"method": "start"}, "device": "cpu"}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def row(number: int, lacks: str | None = None, **columns: Any) -> dict[str, Any]:
    """A row by number: a square and its caption, but for what it lacks."""
    colour = list(COLOURS)[number % len(COLOURS)]
    buffer = io.BytesIO()
    picture(colour, number).save(buffer, "PNG")
    image = {"bytes": buffer.getvalue(), "path": None}
    return {
        "id": f"row {number:03d}",
        "image": None if lacks in ("image", "both") else image,
        "text": None if lacks in ("text", "both") else f"a {colour} square with edge {number}",
        "note": f"note {number}",
        **columns,
    }


def rows(complete: int, text: int, image: int, both: int = 0) -> list[dict[str, Any]]:
    """So many rows of each kind, interleaved."""
    kinds: list[str | None] = [None] * complete
    kinds += ["text"] * text + ["image"] * image + ["both"] * both
    spread = sorted(range(len(kinds)), key=lambda i: (i * 7919) % len(kinds) + i / 1e6)
    return [row(number, kinds[place]) for number, place in enumerate(spread)]


def write(path: Path, data: list[dict[str, Any]], extra: tuple[str, ...] = ("note",)) -> None:
    fields = [("id", pa.string()), ("image", IMAGE), ("text", pa.string())]
    schema = pa.schema([*fields, *((name, pa.string()) for name in extra)])
    path.parent.mkdir(parents=True, exist_ok=True)
    named = [{name: each.get(name) for name in schema.names} for each in data]
    pq.write_table(pa.Table.from_pylist(named, schema=schema), path, row_group_size=32)


def config(folder: Path, name: str = "dmc.yaml", **changes: Any) -> Path:
    """A config over `data/` in a folder; `changes` go on top."""
    values: dict[str, Any] = {
        "name": "quick",
        "dataset": {"path": "data"},
        "encoder": {"kind": "tests.quick_parts:QuickEncoder"},
        "captioner": {"kind": "tests.quick_parts:QuickCaptioner"},
        "image_generator": {"kind": "tests.quick_parts:QuickPainter"},
        # Nothing is left to be measured, so that a build takes a moment.
        "knowledge_base": UNDECIDED
        | {"retrieval": {"mode": "fusion", "k": 10, "alpha": 0.5, "consensus": 0.0}},
        # One call a row, so that calls can be counted.
        "generation": {"n": 2, "ungrounded": {"text": 0}},
        "run": {"shard_size": 8, "block_size": 4},
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def run(config: Path | Config, **options: Any) -> tuple[Job, dict[str, Any]]:
    """A whole run in this process, without Prefect."""
    job = Job(load_config(config) if isinstance(config, Path) else config)
    with job.lock():
        job.begin()
        built = job.build()
        summary = dict(job.complete(**options)) | {"built": built}
        return job, present(job, summary)


def completed(job: Job) -> dict[str, dict[str, Any]]:
    """The completed dataset by id."""
    found = job.completed().to_table().to_pylist()
    by_id = {each["id"]: each for each in found}
    assert len(by_id) == len(found)
    return by_id


class FinishedRun:
    """A run that is done, to change its data and config and run again.

    Attributes
    ----------
    given : list of dict
        The rows of `a.parquet`, the one file of the data.
    """

    def __init__(self, config: Path, given: list[dict[str, Any]]) -> None:
        self.config = config
        self.folder = config.parent
        self.data = self.folder / "data"
        self.given = given

    def job(self) -> Job:
        return Job(load_config(self.config))

    def rows(self) -> dict[str, dict[str, Any]]:
        """The completed dataset by id."""
        return completed(self.job())

    def write(self, **options: Any) -> None:
        """Write `given`, changed or not."""
        write(self.data / "a.parquet", self.given, **options)

    def change(self, **changes: Any) -> None:
        """Change the config: whole values, but of a section only the keys that are given."""
        values = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        for name, value in changes.items():
            old = values.get(name)
            both = isinstance(old, dict) and isinstance(value, dict)
            values[name] = old | value if both else value
        self.config.write_text(yaml.safe_dump(values), encoding="utf-8")

    def lacking(self, half: str) -> list[dict[str, Any]]:
        """Given rows that lack this half alone."""
        other = {"text": "image", "image": "text"}[half]
        return [each for each in self.given if each[half] is None and each[other] is not None]

    def again(self, **options: Any) -> tuple[dict[str, Any], set[str]]:
        """Run again; the summary, and the rows that a generator was asked for."""
        before = len(calls(self.folder))
        _, summary = run(self.config, **options)
        return summary, {row_id for _, row_id in calls(self.folder)[before:]}

    def history(self) -> dict[str, Any]:
        """Halves that others took the place of, by id."""
        found = [pq.read_table(p) for p in (self.folder / "runs/quick/history").glob("*")]
        return {each["id"]: each for table in found for each in table.to_pylist()}
