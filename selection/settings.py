"""How candidates are scored, as a config says it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from selection.bleu import Tokenizer


class Scoring(BaseModel):
    """What holds for candidates of either modality."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    lambda1: float = Field(
        default=1.0, ge=0, description="Weight of the cosine to the row's pseudo-embedding."
    )
    floor_cosine: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Reject the row if no candidate's cosine reaches this.",
    )
    floor_score: float | None = Field(
        default=None, description="Reject the row if no candidate's score reaches this."
    )
    floor_confidence: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Reject the row if less likeness to the truth is expected of its best candidate,"
        " by the run's check; no row, where that held too few.",
    )

    def identity(self) -> dict[str, Any]:
        """The settings that change which candidate is chosen."""
        return self.model_dump(mode="json")


class CaptionScoring(Scoring):
    """How captions are scored."""

    lambda2: float = Field(
        default=0.0, ge=0, description="Weight of BLEU against the examples' captions; paper: 0.1."
    )
    hubness: float = Field(
        default=0.5,
        ge=0,
        description="Weight of a caption's likeness to any picture, which counts against, as in"
        " CSLS; paper: 0.",
    )
    agreement: float = Field(
        default=0.2,
        ge=0,
        description="Weight of the mean cosine to the row's other captions; paper: 0.",
    )
    tokenizer: Tokenizer = Field(
        default="auto",
        description="sacrebleu's tokenizer; auto is 13a, and letter by letter in scripts without"
        " spaces.",
    )
    lowercase: bool = Field(default=False, description="Compare with the examples without case.")


class ImageScoring(Scoring):
    """How pictures are scored."""

    lambda2: float = Field(
        default=0.3, ge=0, description="Weight of NIQE, which counts against; paper: 0.1."
    )
    niqe: Literal["published", "fitted", "off"] = Field(
        default="published",
        description="The NIQE model: the published one, one fitted on the dataset, or none.",
    )
    niqe_block: int = Field(
        default=96,
        ge=16,
        multiple_of=2,
        description="Side in pixels of the blocks of a fitted model.",
    )
    standardise: bool = Field(
        default=True,
        description="Standardise cosine and NIQE on the dataset's pairs before adding them.",
    )

    @property
    def uses_niqe(self) -> bool:
        """Whether NIQE has a part in the score."""
        return self.niqe != "off" and self.lambda2 > 0

    def standards_identity(self) -> dict[str, Any]:
        """The settings that change the measured standards."""
        return {
            "niqe": self.niqe,
            "niqe_block": self.niqe_block if self.niqe == "fitted" else None,
            "uses_niqe": self.uses_niqe,
        }

    def identity(self) -> dict[str, Any]:
        """The settings that change which candidate is chosen."""
        values = super().identity()
        if self.niqe != "fitted":
            del values["niqe_block"]
        return values


class ScoringSettings(BaseModel):
    """How candidates are scored, by modality."""

    model_config = ConfigDict(extra="forbid")

    caption: CaptionScoring = Field(
        default_factory=CaptionScoring, description="Scoring of captions."
    )
    image: ImageScoring = Field(default_factory=ImageScoring, description="Scoring of pictures.")
