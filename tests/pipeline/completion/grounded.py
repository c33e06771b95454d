"""Three rows that lack a half, completed by a whole run, and what is recorded of their examples."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds

GIVEN = {row["id"]: row for row in quick_worlds.rows(14, 3, 0)}
DRAWN = {row["id"]: row for row in quick_worlds.rows(14, 0, 3)}


def world(folder: Path, half: str, **changes: Any) -> Job:
    """Three rows that lack a half, and what makes it; two examples a row, one draw without."""
    given = GIVEN if half == "text" else DRAWN
    quick_worlds.write(folder / "data" / "a.parquet", list(given.values()))
    generation = {"n": 2, "attempts": 1, "ungrounded": {"text": 0.5, "image": 0.5}}
    defaults: dict[str, Any] = {
        "generation": generation,
        "knowledge_base": {
            "mapping": {"method": "start"},
            "device": "cpu",
            "retrieval": {"k": 5, "alpha": 0.5, "examples": 2},
        },
    }
    return Job(load_config(quick_worlds.config(folder, **(defaults | changes))))


def complete(job: Job, half: str, watch: Callable[[Any], None] = lambda made: None) -> list[dict]:
    """Complete, with the generator in the hands of `watch` before it is asked; the made rows."""
    with job.lock():
        job.begin()
        job.build()
        watch(job.models.generator(half).generator)
        job.complete()
    rows = [row for row in quick_worlds.completed(job).values() if row["missing"] == half]
    assert {row["status"] for row in rows} <= {"completed", "rejected"}, rows
    assert len(rows) == 3
    return rows


def picture_of(pair: str) -> Image.Image:
    return Image.open(io.BytesIO((GIVEN | DRAWN)[pair]["image"]["bytes"]))


def text_of(pair: str) -> str:
    return (GIVEN | DRAWN)[pair]["text"]


def recorded(rows: list[dict]) -> list[tuple[dict, tuple[str, ...]]]:
    """Each candidate's row and the ids of the examples that it is recorded with, all checked."""
    found = []
    for row in rows:
        made = row["completion"]
        shown = [tuple(candidate["examples"]) for candidate in made["candidates"]]
        chosen = made["chosen"]
        ids = [example["id"] for example in made["examples"]]
        if chosen is None:
            assert ids == list(dict.fromkeys(one for each in shown for one in each))
        else:
            assert ids == list(shown[chosen])
        for example in made["examples"]:
            assert example["text"] == text_of(example["id"])
            assert example["source"] == "internal" and example["score"] is not None
        assert not {one["id"] for one in made["dropped"]} & {one for each in shown for one in each}
        found += [(row, each) for each in shown]
    return found


def pixels(image: Image.Image) -> bytes:
    """The RGB values of a picture."""
    return image.convert("RGB").tobytes()
