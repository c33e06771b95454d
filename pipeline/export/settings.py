"""Settings of an export."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.export.cutoff import Half
from pipeline.storage.files import FOLDER_NAME


class ExportSettings(BaseModel):
    """What is exported, and in which layout."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["parquet", "webdataset", "imagefolder", "llava", "open_clip"] = Field(
        "parquet", description="layout of the export"
    )
    name: str | None = Field(
        None,
        pattern=FOLDER_NAME,
        description="its folder in exports/, for more than one export of a format; default: the"
        " format",
    )
    only: Literal["completed", "observed", "all"] = Field(
        "all", description="rows with a generated half, rows without one, or both"
    )
    min_score: dict[Half, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        {},
        description="by half, leave out what was generated with a lower score; observed rows stay,"
        " and what a person accepted",
    )
    min_confidence: dict[Half, Annotated[float, Field(ge=-1, le=1)]] = Field(
        {},
        description="by half, leave out what was generated with less confidence, the likeness to the"
        " truth that the run's check lets expect, or with none that is known; what is observed or"
        " accepted stays",
    )
    best: dict[Half, Annotated[float, Field(ge=0, le=1)]] = Field(
        {},
        description="by half, the share of what was generated that is kept, best score first:"
        " {image: 0.5} leaves the worse half of the images out",
    )
    columns: list[str] | None = Field(
        None, description="columns beside id, image and text; default: all that the format holds"
    )
    shard_rows: int = Field(10_000, ge=1, description="most rows in a file of shards")
    prompts: list[str] = Field(
        [
            "Describe the picture in a sentence.",
            "What does the picture show?",
            "Write a caption for the picture.",
        ],
        min_length=1,
        description="questions of the llava format, one of them a row",
    )

    @property
    def place(self) -> str:
        """Its folder in `exports/`, by which a run knows it."""
        return self.name or self.format
