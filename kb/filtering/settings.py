"""Settings of the cluster filter."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kb.filtering.verdicts import Threshold


class FilterSettings(BaseModel):
    """Which external pairs are kept."""

    model_config = ConfigDict(extra="forbid")

    tau_cent: Threshold | Literal["auto"] = Field(
        default="auto",
        description="least cosine of an external cluster to its internal one; paper: 0.6; -2: none",
    )
    tau_inst: Threshold | Literal["auto"] = Field(
        default="auto",
        description="least figure of a pair, on the scale of `instance`: contrast lies about 0, "
        "the other two are cosines (paper: 0.6, of centroid); -2: none",
    )
    provisional_alignment: bool = Field(
        default=True,
        description="align before filtering, and again on what was kept; false: the paper's order",
    )
    instance: Literal["contrast", "neighbours", "centroid"] = Field(
        default="contrast",
        description="what a pair is judged by: its likeness to its nearest internal pairs less half "
        "of that to its nearest external ones; the first alone; or its likeness to the matched "
        "internal centroid, as in the paper",
    )
    neighbours: int = Field(
        default=10, ge=1, description="pairs of a side that a pair is compared with"
    )
    reference: int = Field(
        default=2000, ge=2, description="pairs of a side that neighbours are taken from at most"
    )
    iterations: int = Field(default=25, ge=1, description="iterations of k-means")
    points_per_centroid: int = Field(
        default=64,
        ge=2,
        description="rows a centroid that k-means learns from at most (a seeded sample)",
    )
    sample: int = Field(
        default=50_000,
        ge=2,
        description="internal rows that clusters and thresholds come from at most",
    )

    def identity(self) -> dict[str, Any]:
        """The settings that change the result."""
        return self.model_dump(mode="json")
