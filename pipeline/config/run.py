"""How a run is cut into shards, seeded, checked and bounded, as a config says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

# Of `check: auto`: the share of the rows that lack a half, and its bounds. Below the least, intervals are
# wider than what they are to tell apart.
CHECKED_SHARE = 0.04
MOST_CHECKED = 200
FEWEST_CHECKED = 20


class RunSettings(BaseModel):
    """How a run is cut into shards, seeded, checked and bounded."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0, description="seed of everything random")
    shard_size: int = Field(256, ge=1, description="rows a shard, the unit of work")
    block_size: int = Field(32, ge=1, description="rows in memory at once within a shard")
    check: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="so many complete pairs, for each half that is made, have it hidden, completed"
        " and compared with the truth; auto: 4 % of the rows that lack it, at most 200, and none"
        " where that is fewer than 20; 0: none",
    )
    on_kb_change: Literal["keep", "redo"] = Field(
        "keep",
        description="what a changed knowledge base means for rows already completed",
    )
    max_deleted_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="most rows that may vanish from the input between two runs",
    )
    offline: bool = Field(False, description="download nothing")
    embeddings: str | None = Field(
        None,
        description="folder of the embeddings by content, which runs of one machine may share;"
        " default: in the run's folder",
    )
    remember: bool = Field(
        False,
        description="keep every candidate, images too, so that other settings of selection choose"
        " anew without asking a generator; needs engine local",
    )

    def checked(self, rows: int) -> int:
        """How many pairs are checked for a half that so many rows lack."""
        if self.check != "auto":
            return self.check
        count = min(MOST_CHECKED, int(CHECKED_SHARE * rows))
        return count if count >= FEWEST_CHECKED else 0
