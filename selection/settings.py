"""How candidates are scored, as a config says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from selection.bleu import Tokenizer

# A weight beside the cosine's; `auto`: learned by the run's check where that gains, else the default.
Weight = Annotated[float, Field(ge=0)] | Literal["auto"]


class Scoring(BaseModel):
    """What holds for candidates of either modality."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    weights: ClassVar[tuple[str, ...]] = ()

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

    @property
    def automatic(self) -> tuple[str, ...]:
        """Names of the weights that are to be learned."""
        return tuple(name for name in self.weights if getattr(self, name) == "auto")

    def fixed(self, learned: Mapping[str, float] | None = None) -> Self:
        """The same with numbers for weights: those that were learned, else the defaults."""
        known = dict(learned or {})
        fields = type(self).model_fields
        numbers = {name: known.get(name, fields[name].default) for name in self.automatic}
        return self.model_copy(update=numbers)

    def weight(self, name: str) -> float:
        """One of the weights of `fixed` settings."""
        value = getattr(self, name)
        assert value != "auto", f"{name} is not fixed"
        return float(value)

    def identity(self) -> dict[str, Any]:
        """The settings that change which candidate is chosen."""
        return self.model_dump(mode="json")


class CaptionScoring(Scoring):
    """How captions are scored."""

    weights = ("lambda2", "hubness", "agreement")
    lambda2: Weight = Field(
        default=0.0, description="Weight of BLEU against the examples' captions; paper: 0.1."
    )
    hubness: Weight = Field(
        default=0.5,
        description="Weight of a caption's likeness to any picture, which counts against, as in"
        " CSLS; paper: 0.",
    )
    agreement: Weight = Field(
        default=0.2,
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

    weights = ("lambda2",)
    lambda2: Weight = Field(
        default=0.3, description="Weight of NIQE, which counts against; paper: 0.1."
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
        return self.niqe != "off" and self.lambda2 != 0

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

    def fixed(self) -> ScoringSettings:
        """The same with numbers for weights: the defaults of those that are to be learned."""
        return ScoringSettings(caption=self.caption.fixed(), image=self.image.fixed())
