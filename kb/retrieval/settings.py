"""Settings of fusion retrieval."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# What `auto` stands for until it is measured.
DEFAULT_K = 10
DEFAULT_ALPHA = 0.5


class RetrievalSettings(BaseModel):
    """Which pairs are retrieved for a row."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["fusion", "intra", "cross"] = Field(
        default="fusion",
        description="fusion: both stages; intra: stage 1 alone; cross: the query against the "
        "other modality",
    )
    k: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="neighbours that stage 1 hands to stage 2; paper: 10"
    )
    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        default="auto", description="weight of the similarity in the row's own modality; paper: 0.5"
    )
    examples: int = Field(default=1, ge=1, description="pairs retrieved a row")

    def identity(self) -> dict[str, Any]:
        """The settings that change the result."""
        return self.model_dump(mode="json")
