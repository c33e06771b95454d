"""Settings of an evaluation: what is hidden, which variants complete it, and what is measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.config.variants import TABLE, VARIANTS


class DownstreamSettings(BaseModel):
    """What learns from each variant's completed data, whatever it is."""

    model_config = ConfigDict(extra="forbid")

    seeds: int = Field(5, ge=2, description="trainings a variant, each with a seed of its own")
    steps: int = Field(100, ge=1, description="optimizer steps, the same for every variant")
    batch_size: int = Field(64, ge=2, description="pairs a step")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's highest rate")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's weight decay")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps that the rate rises in")
    device: str = Field("auto", description="auto: cuda where there is one, else cpu")

    def identity(self) -> dict[str, Any]:
        """The settings that change the result of one training, the start checkpoint aside."""
        return self.model_dump(mode="json", exclude={"device", "seeds", "start"})


class FineTuningSettings(DownstreamSettings):
    """A whole open_clip model that is fine-tuned on each variant's completed data."""

    kind: Literal["open_clip"] = "open_clip"
    start: dict[str, Any] | None = Field(
        None,
        description="checkpoint to start from, as an encoder of kind open_clip; it must not have"
        " seen the dataset. Default: the judge",
    )
    shift: float = Field(
        1 / 16, ge=0, lt=1, description="most a picture is shifted, as a share of its side"
    )


class HeadsSettings(DownstreamSettings):
    """Projection heads on the judge's frozen towers, which learn in seconds."""

    kind: Literal["heads"] = "heads"
    seeds: int = Field(10, ge=2, description="trainings a variant, each with a seed of its own")
    steps: int = Field(400, ge=1, description="optimizer steps, the same for every variant")
    batch_size: int = Field(256, ge=2, description="pairs a step")
    width: int = Field(256, ge=1, description="dimensions of the space that the heads share")
    dropout: float = Field(
        0.2, ge=0, lt=1, description="share of the towers' features that a step leaves out"
    )


class EvaluationSettings(BaseModel):
    """How `rag4dmc evaluate` hides halves and measures their completion."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0, description="seed of test set and masks")
    draws: int = Field(
        1,
        ge=1,
        description="test sets and masks, drawn by seed, seed + 1 and so on; their test pairs count"
        " together",
    )
    pairs: int | None = Field(
        5000, ge=20, description="complete pairs that take part at most; null takes all"
    )
    test_share: float = Field(0.2, gt=0, lt=1, description="share of the pairs that is tested on")
    duplicate_cosine: float = Field(
        0.95,
        gt=0,
        description="pairs whose image embedding has this cosine to a test image are left out of"
        " training and of every knowledge base; above 1 leaves none out",
    )
    rates: list[float] = Field(
        [0.3, 0.5, 0.7], min_length=1, description="missing rates: shares that lack a half"
    )
    missing: Literal["mixed", "text", "image"] = Field(
        "mixed", description="which half is hidden; mixed: either, half and half"
    )
    mask: str | None = Field(
        None,
        description="file (CSV, JSONL or Parquet) with columns id and missing (text, image, none"
        " or test), in place of rates and missing",
    )
    variants: list[str] = Field(list(TABLE), min_length=1, description="what is compared")
    judge: dict[str, Any] | None = Field(
        None,
        description="encoder that generated halves are judged by; another than the one that"
        " selects. Default: the config's own, which flatters",
    )
    downstream: (
        Annotated[FineTuningSettings | HeadsSettings, Field(discriminator="kind")] | None
    ) = Field(
        default_factory=lambda: FineTuningSettings(),
        description="what learns from the completed data: `open_clip` (all of a model, fine-tuned),"
        " `heads` (two projections on the judge's frozen towers), or either with its settings; null"
        " leaves it out",
    )

    @field_validator("downstream", mode="before")
    @classmethod
    def _kind(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"kind": given}
        return {"kind": "open_clip"} | given if isinstance(given, dict) else given

    @field_validator("rates")
    @classmethod
    def _rates(cls, values: list[float]) -> list[float]:
        for value in values:
            if not 0 < value < 1:
                raise ValueError(f"a missing rate must lie between 0 and 1; got {value:g}")
        return sorted(set(values))

    @field_validator("variants")
    @classmethod
    def _variants(cls, values: list[str]) -> list[str]:
        for value in values:
            if value not in VARIANTS:
                raise ValueError(f"a variant must be one of {', '.join(VARIANTS)}; got {value!r}")
        return list(dict.fromkeys(values))

    @model_validator(mode="after")
    def _one_mask(self) -> EvaluationSettings:
        if self.mask is not None and self.draws > 1:
            raise ValueError(
                f"draws must be 1 with a mask file, which draws nothing; got {self.draws}"
            )
        return self
