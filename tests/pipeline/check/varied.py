"""A captioner that is sure of some pictures and guesses at others, and a run whose texts it writes."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from generators.base import Candidate, Generated
from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds
from tests.pipeline.check.checked import config, data
from tests.quick_parts import COLOURS, QuickCaptioner

MOST = 8
N = {"least": 2, "most": MOST, "min_improvement": 0.01}
CAPTIONER = {"kind": "tests.pipeline.check.varied:VariedCaptioner"}


class VariedCaptioner(QuickCaptioner):
    """One text whatever the seed where the picture's bytes are even by their sum, else any colour's."""

    def _draw(self, request: Any, seed: int, blank: bool) -> Candidate:
        right = super()._draw(request, 0, blank)
        if sure(request.image):
            return Candidate(seed, right.prompt, text=right.text.split(",")[0])
        name = list(COLOURS)[np.random.default_rng(seed % 2**32).integers(len(COLOURS))]
        return Candidate(seed, "a caption:", text=f"a {name} square, {seed % 97}")


def sure(image: Any) -> bool:
    """Whether it is sure of a picture."""
    return zlib.crc32(image.tobytes()) % 2 == 0


def settings(folder: Path, n: Any, **changes: Any) -> Path:
    generation = {"n": n, "ungrounded": {"text": 0.5}, "attempts": 1}
    return config(
        folder, captioner=CAPTIONER, image_generator=None, generation=generation, **changes
    )


def world(folder: Path, n: Any, **changes: Any) -> Path:
    quick_worlds.write(folder / "data" / "a.parquet", data())
    return settings(folder, n, **changes)


def made(path: Path) -> dict[str, dict[str, Any]]:
    """Rows whose text was made, by id."""
    rows = quick_worlds.completed(Job(load_config(path)))
    return {row_id: row for row_id, row in rows.items() if row["missing"] == "text"}


class FailingLater(QuickCaptioner):
    """Blanks in a row's first round, and an error from then on."""

    def generate(self, requests: Any) -> list[Generated]:
        return [
            Generated(one.row_id, error="HTTP 500")
            if one.numbers[0] >= N["least"]
            else Generated(one.row_id, tuple(Candidate(seed, "", text=" ") for seed in one.seeds))
            for one in requests
        ]
