"""The retrieved example itself as the answer: the baseline that generates nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from generators.base import (
    Candidate,
    CaptionRequest,
    Example,
    Generated,
    ImageRequest,
    Needs,
)
from generators.grounding import usable_examples
from generators.pictures import on_ground


class NearestCaptionSettings(BaseModel):
    """Settings of the captioner."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["nearest"] = Field("nearest", description="The retrieved example is the answer.")

    def models(self) -> dict[str, tuple[str, str | None]]:
        """No model."""
        return {}

    def identity(self) -> dict[str, Any]:
        """The kind alone."""
        return self.model_dump(mode="json")

    def needs(self) -> Needs:
        """A caption, without which there is no answer."""
        return Needs(text=True, image=False, example=True)


class NearestImageSettings(NearestCaptionSettings):
    """Settings of the image generator."""

    def needs(self) -> Needs:
        """A picture, without which there is no answer."""
        return Needs(text=False, image=True, example=True)


class NearestGenerator:
    """What the two have in common: nothing to load, and the j-th candidate is the j-th example."""

    def __init__(self, settings: Any, paths: Mapping[str, Path] | None = None) -> None:
        self.settings = settings

    def load(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to free."""

    def memory(self) -> int:
        """No weights."""
        return 0

    def _answer(self, request: CaptionRequest | ImageRequest) -> Generated:
        """Candidates of one row; with fewer examples than numbers they start again from the first."""
        usable, dropped = usable_examples(request.examples, self.settings.needs())
        if not usable:
            why = dropped[0].reason if dropped else "none was retrieved"
            return Generated(request.row_id, error=f"no example to answer with: {why}")
        numbers = request.numbers or range(len(request.seeds))
        chosen = [usable[number % len(usable)] for number in numbers]
        return Generated(
            request.row_id,
            tuple(
                replace(self._candidate(seed, example), shown=(example.id,), dropped=dropped)
                for seed, example in zip(request.seeds, chosen, strict=True)
            ),
        )

    def _candidate(self, seed: int, example: Example) -> Candidate:
        raise NotImplementedError


class NearestCaptioner(NearestGenerator):
    """Answers with the captions of the retrieved pairs, best first."""

    Settings = NearestCaptionSettings

    def generate(self, requests: Sequence[CaptionRequest]) -> list[Generated]:
        """One candidate a seed; an error for a row without a captioned example."""
        return [self._answer(request) for request in requests]

    def _candidate(self, seed: int, example: Example) -> Candidate:
        return Candidate(seed, "", text=example.text)


class NearestImageGenerator(NearestGenerator):
    """Answers with the images of the retrieved pairs, best first."""

    Settings = NearestImageSettings

    def generate(self, requests: Sequence[ImageRequest]) -> list[Generated]:
        """One candidate a seed; an error for a row without an example that has an image."""
        return [self._answer(request) for request in requests]

    def _candidate(self, seed: int, example: Example) -> Candidate:
        assert example.image is not None
        return Candidate(seed, "", image=on_ground(example.image))
