"""How many candidates are drawn for a row, and from what, as a config says it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from generators.base import Needs
from kb.embeddings import Modality
from pipeline.dataset.encoding import ImageFormat


class Ungrounded(BaseModel):
    """Shares of the candidates that are drawn without an example, by missing half."""

    model_config = ConfigDict(extra="forbid")

    text: float = Field(0.5, ge=0, le=1, description="share of the captions, rounded down")
    image: float = Field(0.0, ge=0, le=1, description="share of the images, rounded down")


class GenerationSettings(BaseModel):
    """How many candidates are drawn for a row, and from what."""

    model_config = ConfigDict(extra="forbid")

    n: int = Field(4, ge=1, description="candidates a row and attempt")
    attempts: int = Field(
        2, ge=1, description="rounds before a row without a candidate is rejected"
    )
    grounded: bool = Field(
        True,
        description="give the generator the retrieved pairs (false: the variant `direct`)",
    )
    ungrounded: Ungrounded = Field(
        default_factory=lambda: Ungrounded(),
        description="shares of the n candidates that are drawn without an example, in case it"
        " misleads; none where a generator makes nothing without one; paper: none",
    )

    image_format: ImageFormat = Field(
        default_factory=lambda: ImageFormat(),
        description="how generated pictures are written, and judged: as they are read back",
    )

    def grounded_of(self, missing: Modality, needs: Needs) -> int:
        """How many of the n candidates are drawn from examples, by what the generator needs.

        All, where it makes nothing without one; none, where it takes nothing of an example.
        """
        if not (self.grounded and needs.any):
            return 0
        if needs.example:
            return self.n
        return self.n - int(self.n * getattr(self.ungrounded, missing))

    def identity(self, missing: Modality, needs: Needs) -> dict[str, Any]:
        """What the candidates of rows that lack this half depend on, but for `attempts`."""
        written = {"image_format": self.image_format.identity()} if missing == "image" else {}
        return {
            "n": self.n,
            "from examples": self.grounded_of(missing, needs),
            **written,
        }
