"""Settings of the cross-modal mapping, and the error of a dataset that has nothing to learn from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class MappingSettings(BaseModel):
    """How the missing half's embedding is predicted."""

    model_config = ConfigDict(extra="forbid")

    method: Literal["auto", "start", "ridge", "blend", "mlp", "attended"] = Field(
        default="auto",
        description="auto: the best per direction by cross-validation; mlp: the paper's network; "
        "blend: its mean with the start; attended: ridge regression corrected by what it misses at "
        "the nearest pairs",
    )
    folds: int = Field(default=5, ge=2, description="folds of the cross-validation")
    fewest_pairs: int = Field(
        default=32,
        ge=2,
        description="below this many pairs that share no half the closed form is used without a "
        "contest",
    )
    sample: int = Field(
        default=50_000, ge=32, description="pairs that the mapping is fitted on at most"
    )
    external: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] = Field(
        default="auto",
        description="weight of a kept, aligned external pair beside an internal one in ridge "
        "regression, corrected or not; auto: measured, 0 where it does not help; 0: internal pairs alone, as in the paper",
    )
    residual: bool = Field(
        default=True,
        description="the MLP corrects the closed form; false: it predicts alone, as in the paper",
    )
    width: int = Field(default=512, ge=8, description="hidden units of the MLP")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout of the MLP")
    learning_rate: float = Field(default=1e-3, gt=0, description="AdamW's learning rate")
    weight_decay: float = Field(default=1e-2, ge=0, description="AdamW's weight decay")
    epochs: int = Field(default=200, ge=1, description="most passes over the pairs")
    patience: int = Field(default=10, ge=1, description="passes without gain before the MLP stops")
    batch_size: int = Field(default=256, ge=1, description="pairs a step of the MLP")

    def identity(self) -> dict[str, Any]:
        """The settings that change the result."""
        return self.model_dump(mode="json")

    def network(self) -> dict[str, Any]:
        """The arguments of the MLP."""
        names = {"residual", "width", "dropout", "learning_rate", "weight_decay"}
        return self.model_dump(include=names | {"epochs", "patience", "batch_size"})


class NoCompletePairs(ValueError):
    """There is no pair to learn the mapping from, or none to retrieve."""
