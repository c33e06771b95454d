"""Where a dataset and external ones are and how they are read, as a person sets it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.dataset.columns import ColumnSettings
from pipeline.dataset.forms.csv_records import Quotes
from pipeline.dataset.images import DECODE_SECONDS, MAX_PIXELS
from pipeline.storage.errors import without_password
from pipeline.storage.files import FOLDER_NAME

# What the dataset's own pairs have as their source.
INTERNAL = "internal"


class DatasetSettings(BaseModel):
    """Where a dataset is, and how to read it."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        min_length=1,
        description="File, folder or glob, local (relative to the config) or an fsspec URL.",
    )
    format: Literal[
        "auto",
        "parquet",
        "imagefolder",
        "jsonl",
        "csv",
        "webdataset",
        "img2dataset",
        "coco",
        "arrow",
    ] = Field("auto", description="The form of the data; 'auto' goes by the files' names.")
    columns: ColumnSettings = Field(
        default_factory=lambda: ColumnSettings(), description="Which columns hold what."
    )
    on_duplicate: Literal["error", "first"] = Field(
        "error",
        description="A second row with the same id ends the run, or is left out.",
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        description="Images with more pixels (width x height) are not decoded.",
    )
    decode_seconds: float = Field(
        DECODE_SECONDS,
        gt=0,
        description="Time limit for decoding one image, in seconds.",
    )
    quotes: Quotes = Field(
        "auto",
        description="How a quote stands within quotes in CSV: doubled, or after a backslash;"
        " 'auto' finds out which. 'none': quotes are part of the texts.",
    )
    image_root: str | None = Field(
        default=None,
        description="Folder that paths of images are relative to and may not leave;"
        " the dataset's own folder if left out.",
    )
    image_prefix: str | None = Field(
        default=None,
        min_length=1,
        description="What paths of images begin with that were written elsewhere, such as"
        " /home/ann/photos or https://host/images: left off, the rest is below image_root.",
    )
    exclude: str | None = Field(
        default=None,
        description="Text file with the ids of rows to leave out, one a line.",
    )

    @field_validator("path", "image_root", "image_prefix", "exclude")
    @classmethod
    def _without_password(cls, value: str | None) -> str | None:
        return without_password(value)


class ExternalSettings(DatasetSettings):
    """An external dataset of complete pairs."""

    name: str = Field(
        pattern=FOLDER_NAME,
        description="name of the source; its pairs' ids start with it",
    )
    licence: str | None = Field(
        None,
        description="licence of the pairs, where no column `licence` says it by row",
    )

    @field_validator("name")
    @classmethod
    def _not_our_own(cls, value: str) -> str:
        # Upper case too: some file systems take both for one folder.
        if value.lower() == INTERNAL:
            raise ValueError(f"must not be {INTERNAL!r}, which the dataset's own pairs are called")
        return value
