"""External datasets: complete pairs of others to learn from, each a source by a name of its own."""

from __future__ import annotations

from pydantic import Field, field_validator

from pipeline.dataset.dataset import DatasetSettings
from pipeline.storage.files import FOLDER_NAME

# What the dataset's own pairs have as their source.
INTERNAL = "internal"


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
