"""Which kind of index holds so many rows: exact, inverted lists, compressed codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["flat", "ivf", "ivf_sq8", "ivf_pq"]

# Rows up to which each kind is chosen. A flat search of 50,000 rows of 512-d takes about half a
# millisecond a query on two cores; half-precision lists of ten million take 10 GB a modality.
FLAT_UP_TO = 50_000
IVF_UP_TO = 10_000_000
SQ8_UP_TO = 30_000_000
# Product quantisers learn 256 codes a part.
PQ_FROM = 256
# An index is trained anew once it holds so many times more or fewer rows.
OUTGROWN = 2
# Compressed codes order candidates only roughly: so many times k are fetched and scored exactly.
REFINE = {"flat": 1, "ivf": 1, "ivf_sq8": 2, "ivf_pq": 10}


class IndexSettings(BaseModel):
    """How embeddings are searched."""

    model_config = ConfigDict(extra="forbid")

    index: Literal["auto", "flat", "ivf", "ivf_sq8", "ivf_pq"] = Field(
        default="auto",
        description="flat: exact; ivf: inverted lists in half precision; ivf_sq8, ivf_pq: inverted "
        "lists of one byte a dimension and of product-quantised codes; auto: by size",
    )
    lists: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="inverted lists; auto: 2 sqrt(n), at least 32 rows each"
    )
    probes: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="lists searched a query; auto: the fewest that reach the recall goal",
    )
    points_per_list: int = Field(
        default=40, ge=1, description="rows a list that the quantiser learns from at most"
    )

    def identity(self) -> dict[str, Any]:
        """The settings that change the result."""
        return self.model_dump(mode="json")


def kind_for(rows: int, asked: Kind | Literal["auto"] = "auto") -> Kind:
    """The kind for a number of rows: the one asked for, where it can be, or by size."""
    if asked == "ivf_pq" and rows < PQ_FROM:
        return "flat"
    if asked != "auto":
        return asked
    if rows <= FLAT_UP_TO:
        return "flat"
    if rows <= IVF_UP_TO:
        return "ivf"
    return "ivf_sq8" if rows <= SQ8_UP_TO else "ivf_pq"


def outgrown(description: Mapping[str, Any], settings: IndexSettings, rows: int) -> bool:
    """Whether an index of so many rows should be trained anew rather than follow.

    `description` is `EmbeddingIndex.describe` of the index as it is.
    """
    if description["kind"] != kind_for(rows, settings.index):
        return True
    trained_for = description.get("trained_for", rows)
    return not trained_for / OUTGROWN <= rows <= trained_for * OUTGROWN
