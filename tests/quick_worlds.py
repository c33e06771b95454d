"""Datasets of coloured squares and configs of the quick parts, for tests of many runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.config import Config, load_config
from pipeline.job import Job
from tests.quick_parts import COLOURS, picture

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
        "knowledge_base": {"mapping": {"method": "start"}, "device": "cpu"},
        "generation": {"n": 2},
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
        return job, job.present(summary)


def completed(job: Job) -> dict[str, dict[str, Any]]:
    """The completed dataset by id."""
    found = job.completed().to_table().to_pylist()
    by_id = {each["id"]: each for each in found}
    assert len(by_id) == len(found)
    return by_id
