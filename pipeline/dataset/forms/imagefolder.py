"""Folders of image files, described by `metadata.jsonl`, `.csv` or `.parquet` beside them.

The metadata's `file_name` is relative to the metadata's own folder, as Hugging Face has it. Images
that no metadata names are rows as well: images without a text.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipeline.dataset.forms.base import (
    BATCH_ROWS,
    IMAGE_CELL,
    Batch,
    DatasetError,
    Source,
    SourceFile,
    digest,
    is_string,
)
from pipeline.dataset.forms.csv_records import Quotes
from pipeline.dataset.forms.kinds import json_kinds, loose_strings
from pipeline.dataset.forms.parquet import ParquetSource
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.rows import Columns
from pipeline.dataset.forms.table import CsvSource, JsonLinesSource

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
FILE_NAME = "file_name"

# The images of a folder that no metadata names are a file of the dataset by this name.
_REST = "*"


class _MetadataParquet(ParquetSource):
    def names(self) -> list[str]:
        return [n for n in super().names() if posixpath.basename(n) == "metadata.parquet"]


class ImageFolderSource:
    """All image files below a root, with their metadata."""

    def __init__(self, root: Root, quotes: Quotes = "auto") -> None:
        self.root = root
        self._quotes: Quotes = quotes
        names = root.names()
        self._metadata = [n for n in names if posixpath.basename(n) in METADATA]
        self._folders = [f for f in root.folders() if root.images(f)]
        self._table = self._open_table()
        self._named: set[str] | None = None
        self._rest_of: tuple[str, list[str]] | None = None

    def files(self) -> list[SourceFile]:
        # What an image file holds may change while the metadata stays, so a version takes in both.
        images = {f: self.root.listing_version(self.root.images(f)) for f in self._folders}
        known = self.root.listing_version(self._metadata)
        found = [self._file(name, self.root.version(name), images) for name in self._metadata]
        for folder, version in images.items():
            name = posixpath.join(folder, _REST)
            found.append(SourceFile(name, self.root.url(name), f"{version}+{known}"))
        return sorted(found, key=lambda file: file.name)

    @property
    def columns(self) -> Columns | None:
        """Those of the metadata, where they grow as they are read."""
        return getattr(self._table, "columns", None)

    def schema(self) -> pa.Schema:
        if self._table is None:
            return pa.schema([(FILE_NAME, IMAGE_CELL)])
        schema = self._table.schema()
        if FILE_NAME not in schema.names or not is_string(schema.field(FILE_NAME).type):
            raise DatasetError(
                f"{self._metadata[0]} has no column {FILE_NAME!r} that names the images"
                f" (columns: {', '.join(schema.names)})"
            )
        at = schema.get_field_index(FILE_NAME)
        return schema.set(at, pa.field(FILE_NAME, IMAGE_CELL))

    def batches(self, name: str, columns: Sequence[str] | None) -> Iterator[Batch]:
        if posixpath.basename(name) == _REST:
            yield from self._rest(posixpath.dirname(name), columns)
        else:
            assert self._table is not None
            for positions, batch in self._table.batches(name, columns):
                yield positions, _with_images(batch, posixpath.dirname(name))

    def take(
        self, name: str, positions: np.ndarray, columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        if posixpath.basename(name) == _REST:
            yield from self._rest(posixpath.dirname(name), columns, positions)
        else:
            assert self._table is not None
            for found, batch in self._table.take(name, positions, columns):
                yield found, _with_images(batch, posixpath.dirname(name))

    def _open_table(self) -> Source | None:
        kinds = {posixpath.splitext(n)[1] for n in self._metadata}
        if not kinds:
            return None
        if len(kinds) > 1:
            raise DatasetError(
                f"{self.root.path} holds metadata of more than one kind"
                f" ({', '.join(sorted(kinds))}); keep one"
            )
        kind = kinds.pop()
        if kind == ".jsonl":
            return JsonLinesSource(self.root, self._metadata)
        if kind == ".csv":
            return CsvSource(self.root, self._metadata, self._quotes)
        return _MetadataParquet(self.root)

    def _file(self, name: str, version: str, images: dict[str, str]) -> SourceFile:
        folder = posixpath.dirname(name)
        below = digest(
            part
            for inner, listing in images.items()
            if not folder or inner == folder or inner.startswith(f"{folder}/")
            for part in (inner, listing)
        )
        return SourceFile(name, self.root.url(name), f"{version}+{below}")

    def _names_in_metadata(self) -> set[str]:
        named: set[str] = set()
        for name in self._metadata:
            assert self._table is not None
            folder = posixpath.dirname(name)
            for _, batch in self._table.batches(name, [FILE_NAME]):
                paths = _paths(batch)
                named.update(_join(folder, path) for path in paths if path)
        return named

    def _unnamed(self, folder: str) -> list[str]:
        """The images right in a folder that no metadata names, in order."""
        if self._named is None:
            self._named = self._names_in_metadata()
        if self._rest_of is None or self._rest_of[0] != folder:
            names = [n for n in self.root.images(folder) if n not in self._named]
            self._rest_of = (folder, names)
        return self._rest_of[1]

    def _rest(
        self, folder: str, columns: Sequence[str] | None, positions: np.ndarray | None = None
    ) -> Iterator[Batch]:
        names, schema = self._unnamed(folder), self.schema()
        columns = schema.names if columns is None else columns
        wanted = np.arange(len(names)) if positions is None else positions
        wanted = wanted[wanted < len(names)]
        for start in range(0, len(wanted), BATCH_ROWS):
            part = wanted[start : start + BATCH_ROWS]
            cells = [{"path": names[position]} for position in part]
            arrays = [
                pa.array(cells, IMAGE_CELL)
                if column == FILE_NAME
                else pa.nulls(len(part), _type_of(schema, column))
                for column in columns
            ]
            yield part, pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _type_of(schema: pa.Schema, column: str) -> pa.DataType:
    return schema.field(column).type if column in schema.names else pa.string()


def _paths(batch: pa.RecordBatch) -> list[str | None]:
    at = batch.schema.get_field_index(FILE_NAME)
    if json_kinds(batch.schema.field(at)) is not None:
        return loose_strings(batch.column(at))
    return batch.column(at).to_pylist()


def _join(folder: str, path: str) -> str:
    if "://" in path or path.startswith(("/", "data:")):
        return path
    joined = posixpath.join(folder, path)
    # "a/../b" is tidied only where no link can make it another place; the root judges the rest.
    return joined if ".." in path.split("/") else posixpath.normpath(joined)


def _with_images(batch: pa.RecordBatch, folder: str) -> pa.RecordBatch:
    if FILE_NAME not in batch.schema.names:
        return batch
    at = batch.schema.get_field_index(FILE_NAME)
    paths = _paths(batch)
    cells = [{"path": _join(folder, path) if path else path} for path in paths]
    return batch.set_column(at, pa.field(FILE_NAME, IMAGE_CELL), pa.array(cells, IMAGE_CELL))
