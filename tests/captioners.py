"""Captioners of a test's own, chosen by `kind`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from generators.base import Candidate, CaptionRequest, Generated, derive_seed


class LateCaptioner:
    """Answers nothing until the attempt `good_attempt`, then a caption."""

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid")
        kind: str
        good_attempt: int

        def models(self) -> dict[str, tuple[str, str | None]]:
            return {}

        def identity(self) -> dict[str, Any]:
            return self.model_dump()

    def __init__(self, settings: Settings, paths: Mapping[str, Path]) -> None:
        self.settings = settings

    def load(self) -> None:
        pass

    def close(self) -> None:
        pass

    def memory(self) -> int:
        return 0

    def generate(self, requests: Sequence[CaptionRequest]) -> list[Generated]:
        answers = []
        for request in requests:
            good = derive_seed(0, request.row_id, 0, self.settings.good_attempt)
            text = "a small red apple" if request.seeds[0] == good else " "
            candidates = tuple(Candidate(seed, "prompt", text=text) for seed in request.seeds)
            answers.append(Generated(request.row_id, candidates))
        return answers


class NumberCaptioner:
    """A caption of its own for every seed; with `same`, one for all of a row."""

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid")
        kind: str
        noun: str = "apple"
        same: bool = False

        def models(self) -> dict[str, tuple[str, str | None]]:
            return {}

        def identity(self) -> dict[str, Any]:
            return self.model_dump()

    def __init__(self, settings: Settings, paths: Mapping[str, Path]) -> None:
        self.settings = settings

    def load(self) -> None:
        pass

    def close(self) -> None:
        pass

    def memory(self) -> int:
        return 0

    def generate(self, requests: Sequence[CaptionRequest]) -> list[Generated]:
        return [
            Generated(
                request.row_id,
                tuple(
                    Candidate(seed, "prompt", text=self._caption(request.row_id, seed))
                    for seed in request.seeds
                ),
            )
            for request in requests
        ]

    def _caption(self, row_id: str, seed: int) -> str:
        return f"one {self.settings.noun} of {row_id if self.settings.same else seed}"
