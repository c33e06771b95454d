"""What every form of dataset answers: its files, their rows in order, and named rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

# What a source yields at a time: few enough rows and bytes to hold many batches in memory.
BATCH_ROWS = 256
BATCH_BYTES = 64 << 20

# An image of a row as sources hand it on. `reason` says why it is missing, where the source knows.
IMAGE_CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("reason", pa.string())])


class DatasetError(ValueError):
    """A dataset that cannot be used as it is: one line that says what to change."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a dataset: the unit of reading.

    Attributes
    ----------
    name
        Relative to the dataset's folder.
    url
        Where it is.
    version
        Changes when the file, or what its rows point to, may have changed: of size and
        modification time, or the ETag.
    """

    name: str
    url: str
    version: str


Positions = np.ndarray
Batch = tuple[Positions, pa.RecordBatch]


class Source(Protocol):
    """One form of dataset."""

    def files(self) -> list[SourceFile]:
        """The files in order of their names."""

    def schema(self) -> pa.Schema:
        """The columns, as the beginning of the first file has them; reads no more than that."""

    def batches(self, name: str, columns: Sequence[str]) -> Iterator[Batch]:
        """The rows of a file in order: their positions (int64) and the columns asked for.

        Raises
        ------
        DatasetError
            If the file is damaged or its columns are not those of `schema`.
        """

    def take(self, name: str, positions: np.ndarray, columns: Sequence[str]) -> Iterator[Batch]:
        """The same for some rows only, `positions` being sorted; reads as little as it can."""


def digest(parts: Iterable[str]) -> str:
    """A short digest of strings, for versions that sum up many files."""
    state = hashlib.blake2b(digest_size=12)
    for part in parts:
        state.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return state.hexdigest()


def select_rows(batches: Iterable[Batch], positions: np.ndarray) -> Iterator[Batch]:
    """Keep the rows at sorted `positions` of batches that run in order, and stop after the last."""
    if len(positions) == 0:
        return
    for found, batch in batches:
        wanted = np.flatnonzero(np.isin(found, positions, assume_unique=True))
        if len(wanted):
            yield found[wanted], batch.take(pa.array(wanted))
        if len(found) and found[-1] >= positions[-1]:
            return


def check_drift(first: str, expected: pa.Schema, name: str, found: pa.Schema) -> None:
    """Raise a `DatasetError` if a file's columns differ from those of the first file.

    The order of columns does not matter.
    """
    for field in expected:
        if field.name not in found.names:
            raise DatasetError(
                f"{name} has no column {field.name!r}, which {first} has ({field.type});"
                " give all files the same columns"
            )
        if not found.field(field.name).type.equals(field.type):
            raise DatasetError(
                f"column {field.name!r} is {found.field(field.name).type} in {name}"
                f" but {field.type} in {first}; give all files the same types"
            )
    for column in found.names:
        if column not in expected.names:
            raise DatasetError(
                f"{name} has a column {column!r}, which {first} has not;"
                " give all files the same columns"
            )
