"""Pairs by content, and written with some halves hidden as the incomplete dataset of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kb.embeddings import Modality
from pipeline.dataset.schema import IMAGE
from pipeline.storage.digests import digest
from pipeline.storage.errors import ConfigError
from pipeline.storage.files import writing_whole


@dataclass(frozen=True)
class Row:
    """A complete pair: its image as encoded bytes, and its captions."""

    image: bytes
    texts: tuple[str, ...]

    def half(self, modality: Modality) -> tuple[bytes] | tuple[str, ...]:
        """The content of one half."""
        return (self.image,) if modality == "image" else self.texts


@dataclass(frozen=True)
class Pairs:
    """Pictures with their captions.

    Attributes
    ----------
    images : bytes of encoded files
    texts : captions of each, at least one
    """

    images: Sequence[bytes]
    texts: Sequence[Sequence[str]]

    def __len__(self) -> int:
        return len(self.images)

    def digest(self) -> str:
        """A digest of the content, in order."""
        return digest(*(digest(i, *t) for i, t in zip(self.images, self.texts, strict=True)))


@dataclass(frozen=True)
class Masked:
    """The training pairs with some halves hidden, as a dataset on disk.

    Attributes
    ----------
    rate : float
        Share of the rows that lack a half.
    hidden : dict
        Id to the half that is hidden.
    path : Path
        The Parquet file.
    """

    rate: float
    hidden: Mapping[str, Modality]
    path: Path


def write_masked(
    folder: Path,
    ids: Sequence[str],
    rows: Mapping[str, Row],
    hidden: Mapping[str, Modality],
    rate: float,
    several: bool,
) -> Masked:
    """Write a masked dataset, where it is not there yet.

    Parameters
    ----------
    folder : Path
    ids : the rows, in order
    rows : their content
    hidden : id to the half that is hidden
    rate : float
        Names it.
    several : bool
        Texts are lists of captions.

    Raises
    ------
    ConfigError
        Nothing is hidden, or no pair stays complete.
    """
    if not hidden or len(hidden) == len(ids):
        raise ConfigError(
            f"evaluation: of {len(ids)} training pairs a missing rate of {rate:g} hides"
            f" {len(hidden)}; some must stay complete and some must lack a half"
        )
    content = digest(*(digest(i, str(hidden.get(i)), rows[i].image, *rows[i].texts) for i in ids))
    path = folder / f"rows-{rate:g}-{content[:12]}.parquet"
    if path.is_file():
        return Masked(rate, hidden, path)
    text = pa.list_(pa.string()) if several else pa.string()
    schema = pa.schema([("id", pa.string()), ("image", IMAGE), ("text", text)])
    columns: dict[str, list[Any]] = {"id": list(ids), "image": [], "text": []}
    for row_id in ids:
        row, half = rows[row_id], hidden.get(row_id)
        columns["image"].append(None if half == "image" else {"bytes": row.image, "path": None})
        texts = list(row.texts) if several else row.texts[0]
        columns["text"].append(None if half == "text" else texts)
    with writing_whole(path) as scratch:
        pq.write_table(pa.table(columns, schema=schema), scratch, row_group_size=100)
    return Masked(rate, hidden, path)
