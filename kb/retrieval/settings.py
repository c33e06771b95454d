"""Settings of fusion retrieval."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# What `auto` stands for until it is measured.
DEFAULT_K = 10
DEFAULT_ALPHA = 0.5
DEFAULT_MODE = "fusion"
DEFAULT_CONSENSUS = 0.0
DEFAULT_PENALTY = 0.0


class RetrievalSettings(BaseModel):
    """Which pairs are retrieved for a row."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["auto", "fusion", "intra", "pseudo", "cross"] = Field(
        default="auto",
        description="fusion: both stages; intra: stage 1 alone; pseudo: the pseudo-embedding "
        "against the other modality; cross: the query itself against it, where the encoder has "
        "one space; auto: the best of fusion, pseudo and cross, measured",
    )
    k: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="neighbours that stage 1 hands to stage 2; paper: 10"
    )
    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        default="auto", description="weight of the similarity in the row's own modality; paper: 0.5"
    )
    consensus: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] = Field(
        default="auto",
        description="weight of a candidate's likeness to the other k, by what they hold of the "
        "missing modality; paper: 0",
    )
    external_penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] = Field(
        default="auto",
        description="what an external pair loses against the dataset's own in both stages, for it words "
        "and draws otherwise; auto: measured for each missing half; paper: 0",
    )
    fusion: Literal["score", "gate", "attention"] = Field(
        default="score",
        description="of mode fusion: score: both similarities by alpha; gate: alpha of its own for "
        "each query; attention: beside the score a learned term of query and candidate. Both are "
        "learned on the complete pairs, and left off where they do not gain",
    )
    examples: int = Field(default=1, ge=1, description="pairs retrieved a row")
    diversity: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="of several examples: what each loses for its likeness to those before it, by what "
        "they hold of the missing modality, times this (maximal marginal relevance)",
    )

    def identity(self) -> dict[str, Any]:
        """The settings that change the result, of which some do nothing beside others."""
        values = self.model_dump(mode="json")
        if self.mode not in ("auto", "fusion"):
            del values["alpha"], values["fusion"]
        if self.examples == 1:
            del values["diversity"]
        return values

    def decided(self) -> RetrievalSettings:
        """With the defaults in place of `auto`."""
        defaults = {
            "mode": DEFAULT_MODE,
            "k": DEFAULT_K,
            "alpha": DEFAULT_ALPHA,
            "consensus": DEFAULT_CONSENSUS,
            "external_penalty": DEFAULT_PENALTY,
        }
        return self.model_copy(
            update={n: v for n, v in defaults.items() if getattr(self, n) == "auto"}
        )


def asks_by_pseudo(mode: str, shared_space: bool) -> bool:
    """Whether stage 1 searches by pseudo-embeddings: in `cross` too where there is no other way."""
    return mode == "pseudo" or (mode == "cross" and not shared_space)
