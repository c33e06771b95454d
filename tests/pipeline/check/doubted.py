"""A captioner that guesses at some pictures until it is shown three examples, and a run that looks again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.base import Candidate, Generated, Needs
from tests import quick_worlds
from tests.pipeline.check.checked import config, data
from tests.pipeline.check.varied import VariedCaptioner
from tests.quick_parts import QuickCaptioner

N = 2
LOOK = {"below": 0.96, "examples": 3}


class DoubtingCaptioner(VariedCaptioner):
    """Names the colour of every picture once it is shown as many examples as only a second look shows."""

    def _draw(self, request: Any, seed: int, blank: bool) -> Candidate:
        if len(request.examples) == LOOK["examples"]:
            return QuickCaptioner._draw(self, request, seed, blank)
        return super()._draw(request, seed, blank)


class FailingAgain(VariedCaptioner):
    """Answers a second look with an error."""

    def generate(self, requests: Any) -> list[Generated]:
        return [
            Generated(one.row_id, error="HTTP 500")
            if len(one.examples) == LOOK["examples"]
            else VariedCaptioner.generate(self, [one])[0]
            for one in requests
        ]


class BlindCaptioner(VariedCaptioner):
    """Takes nothing of an example."""

    class Settings(VariedCaptioner.Settings):
        def needs(self) -> Needs:
            return Needs(text=False, image=False)


def settings(folder: Path, look: Any = LOOK, n: Any = N, **changes: Any) -> Path:
    generation = {"n": n, "ungrounded": {"text": 0.5}, "attempts": 1, "second_look": look}
    captioner = {"kind": "tests.pipeline.check.doubted:DoubtingCaptioner"}
    parts = {"captioner": captioner, "image_generator": None} | changes
    return config(folder, generation=generation, **parts)


def world(folder: Path, look: Any = LOOK, n: Any = N, **changes: Any) -> Path:
    quick_worlds.write(folder / "data" / "a.parquet", data())
    return settings(folder, look, n, **changes)
