"""What a scan has found in a file before it is through with it, kept so that another can go on.

Trying the images of one huge file takes hours. What was found is kept from time to time, in pieces, each
written once, so that keeping them costs what they hold.
"""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.forms.base import SourceFile
from pipeline.storage.digests import digest
from pipeline.storage.files import writing_whole

# What a scan that is killed loses at most.
SECONDS = 30.0


class Begun:
    """The pieces of a file's findings.

    Parameters
    ----------
    folder : Path
        Where findings are kept.
    file : SourceFile
    reading : str
        What decides what is found; pieces of another reading or version of the file are not used.

    Attributes
    ----------
    rows : int
        How many of the first rows of the file are held.
    """

    def __init__(self, folder: Path, file: SourceFile, reading: str) -> None:
        self._folder = folder
        self._name = digest(file.name)
        self._told = {b"version": file.version.encode(), b"reading": reading.encode()}
        self._pieces: list[pa.Table] = []
        self.rows = 0
        while (piece := self._load(len(self._pieces))) is not None:
            self._pieces.append(piece)
            self.rows += len(piece)
        self._waiting: list[pa.Table] = []
        self._since = time.monotonic()

    def table(self, schema: pa.Schema) -> pa.Table:
        """The rows that are held."""
        return pa.concat_tables([schema.empty_table(), *self._pieces])

    def add(self, found: pa.Table) -> None:
        """Take in the next rows; on disk when it is time, those before them as well."""
        self._waiting.append(found)
        if time.monotonic() - self._since < SECONDS:
            return
        piece = pa.concat_tables(self._waiting)
        with writing_whole(self._place(len(self._pieces))) as scratch:
            told = piece.replace_schema_metadata(self._told)
            pq.write_table(told, scratch, compression="zstd")
        self._pieces.append(piece)
        self._waiting, self._since = [], time.monotonic()

    def clear(self) -> None:
        """Remove the pieces: what was found is kept whole, or is of no use."""
        for path in self._folder.glob(f"{self._name}-*.begun"):
            path.unlink(missing_ok=True)

    def _place(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:05d}.begun"

    def _load(self, number: int) -> pa.Table | None:
        try:
            found = pq.ParquetFile(self._place(number)).read()
        except (FileNotFoundError, pa.ArrowInvalid):
            return None
        held = found.schema.metadata or {}
        if any(held.get(key) != value for key, value in self._told.items()):
            return None
        return found.replace_schema_metadata(None)
