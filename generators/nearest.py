"""The retrieved example itself as the answer: the baseline that generates nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from generators.base import Candidate, CaptionRequest, Example, Generated, ImageRequest


class NearestSettings(BaseModel):
    """Settings of both nearest generators."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["nearest"] = Field("nearest", description="The retrieved example is the answer.")

    def models(self) -> dict[str, tuple[str, str | None]]:
        """No model."""
        return {}

    def identity(self) -> dict[str, Any]:
        """The kind alone."""
        return self.model_dump(mode="json")


class NearestGenerator:
    """What the two have in common: nothing to load, and the j-th candidate is the j-th example."""

    Settings = NearestSettings

    def __init__(self, settings: NearestSettings, paths: Mapping[str, Path] | None = None) -> None:
        self.settings = settings

    def load(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to free."""

    def memory(self) -> int:
        """No weights."""
        return 0

    def _answer(
        self,
        request: CaptionRequest | ImageRequest,
        usable: Sequence[Example],
        missing: str,
    ) -> Generated:
        """Candidates of one row; with fewer examples than seeds they start again from the first."""
        if not usable:
            return Generated(request.row_id, error=missing)
        chosen = [usable[number % len(usable)] for number in range(len(request.seeds))]
        return Generated(
            request.row_id,
            tuple(
                self._candidate(seed, example)
                for seed, example in zip(request.seeds, chosen, strict=True)
            ),
        )

    def _candidate(self, seed: int, example: Example) -> Candidate:
        raise NotImplementedError


class NearestCaptioner(NearestGenerator):
    """Answers with the captions of the retrieved pairs, best first."""

    def generate(self, requests: Sequence[CaptionRequest]) -> list[Generated]:
        """One candidate a seed; an error for a row without a captioned example."""
        return [
            self._answer(
                request,
                [example for example in request.examples if example.text.strip()],
                "no example with a caption was retrieved",
            )
            for request in requests
        ]

    def _candidate(self, seed: int, example: Example) -> Candidate:
        return Candidate(seed, "", text=example.text, notes=(f"caption of {example.id}",))


class NearestImageGenerator(NearestGenerator):
    """Answers with the images of the retrieved pairs, best first."""

    def generate(self, requests: Sequence[ImageRequest]) -> list[Generated]:
        """One candidate a seed; an error for a row without an example that has an image."""
        return [
            self._answer(
                request,
                [example for example in request.examples if example.image is not None],
                "no example with an image was retrieved",
            )
            for request in requests
        ]

    def _candidate(self, seed: int, example: Example) -> Candidate:
        assert example.image is not None
        return Candidate(
            seed,
            "",
            image=example.image.convert("RGB"),
            notes=(f"image of {example.id}",),
        )
