"""Batches of any form of dataset made alike: ids, images with their bytes, captions, other columns."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.cells import image_cells, without_bytes
from pipeline.dataset.columns import (
    ColumnSettings,
    free_name,
    is_uuid,
    text_kind,
)
from pipeline.dataset.forms.base import BATCH_BYTES, IMAGE_CELL, Batch
from pipeline.dataset.forms.file_metadata import of_columns
from pipeline.dataset.forms.inline import inline_image
from pipeline.dataset.forms.kinds import json_kinds, loose_strings, unmarked
from pipeline.dataset.forms.pictures import Pictures
from pipeline.dataset.forms.reasons import NO_IMAGES, NO_TEXTS
from pipeline.dataset.halves import (
    Cell,
    captions,
    in_cell,
    json_captions,
    path_to_read,
    readable_rows,
    unpacked,
)
from pipeline.dataset.schema import HUGGINGFACE, IMAGE, features_of, with_features

# Images that are read by their paths at the same time, where that takes a server.
IMAGES_AT_ONCE = 32

Unread = Callable[[str], bool]


class Unified:
    """Makes the same columns of what a source reads, whatever its form.

    Parameters
    ----------
    columns
        Which of the source's columns hold what.
    read : pyarrow.Schema
        The source's columns.
    images
        Where images that are named by their paths lie.

    Attributes
    ----------
    schema : pyarrow.Schema
        Of the batches that come out; see `pipeline.dataset.dataset.Dataset.batches`.
    extra_schema : pyarrow.Schema
        The pass-through columns. One with a name that the completed dataset has itself is called
        `source_NAME`. It keeps what the source says of them, and what `datasets` knows.
    passed : list of pyarrow.Field
        The same columns by the names and with the marks that the source gives them.
    text_is_list : bool
        Whether the text column holds lists of captions.
    needed : list of str
        The source's columns that have to be read.
    """

    def __init__(self, columns: ColumnSettings, read: pa.Schema, images: Pictures) -> None:
        self.columns = columns
        self._images = images
        self.text_is_list = bool(columns.text) and text_kind(read.field(columns.text)) == "list"
        self._extra_names = list(columns.extra or ())
        asked = [columns.id, columns.image, columns.text]
        self.needed = list(dict.fromkeys([c for c in asked if c] + self._extra_names))
        taken = set(read.names)
        self.passed = [read.field(name) for name in self._extra_names]
        features, names = features_of(read), [free_name(f.name, taken) for f in self.passed]
        told = {k: v for k, v in (read.metadata or {}).items() if k != HUGGINGFACE}
        self.extra_schema = with_features(
            pa.schema(
                [
                    unmarked(field).with_name(name).with_nullable(True)
                    for name, field in zip(names, self.passed, strict=True)
                ],
                metadata=of_columns(told, names),
            ),
            {
                n: features[f.name]
                for n, f in zip(names, self.passed, strict=True)
                if f.name in features
            },
        )
        fields = [
            pa.field("position", pa.int64()),
            pa.field("id", pa.string()),
            pa.field("image", IMAGE),
            pa.field("image_reason", pa.string()),
            pa.field("text", pa.list_(pa.string())),
            pa.field("text_reason", pa.string()),
        ]
        if self._extra_names:
            fields.append(pa.field("extra", pa.struct(list(self.extra_schema))))
        self.schema = pa.schema(fields)

    def batches(
        self, name: str, read: Batch, unread: Unread = lambda path: False
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a batch of the source, at most about 64 MB of images at a time.

        Images are not read of whose path `unread` says so: no bytes, and no reason either. A row
        that can't be read as it is has neither half, and the reason for both.

        Raises
        ------
        DatasetError
            The file called `name` is damaged.
        """
        positions, batch = read
        if batch.num_rows == 0:
            return
        batch, faults = readable_rows(name, positions, batch)
        ids = self._ids(batch)
        texts, text_reasons = self._texts(batch)
        extra = self._extra(batch)
        cells = self._cells(batch, posixpath.dirname(name))
        for row, fault in faults.items():
            cells[row] = {"bytes": None, "path": None, "reason": fault}
            texts[row], text_reasons[row] = [], fault
        start, size = 0, 0
        images: list[dict[str, Any]] = []
        reasons: list[str | None] = []
        for row, (image, reason) in enumerate(self._read_images(cells, unread)):
            images.append(image)
            reasons.append(reason)
            size += len(image["bytes"] or b"")
            if size >= BATCH_BYTES or row + 1 == batch.num_rows:
                end = row + 1
                columns = [
                    pa.array(positions[start:end], pa.int64()),
                    ids.slice(start, end - start),
                    pa.array(images, IMAGE),
                    pa.array(reasons, pa.string()),
                    pa.array(texts[start:end], pa.list_(pa.string())),
                    pa.array(text_reasons[start:end], pa.string()),
                ]
                if extra is not None:
                    columns.append(extra.slice(start, end - start))
                yield pa.RecordBatch.from_arrays(columns, schema=self.schema)
                start, size, images, reasons = end, 0, [], []

    def _cells(self, batch: pa.RecordBatch, folder: str) -> list[Cell]:
        """The images of rows of a table in a folder."""
        if not self.columns.image:
            return [{"bytes": None, "path": None, "reason": NO_IMAGES}] * batch.num_rows
        column, field = _column(batch, self.columns.image)
        found = image_cells(column, field, lambda path: self.is_there(folder, path))
        cells = list(map(unpacked, found))
        # Forms that know where an image lies say it from the root.
        rooted = column.type == IMAGE_CELL
        return cells if rooted or not folder else [self._placed(folder, cell) for cell in cells]

    def _placed(self, folder: str, cell: Cell) -> Cell:
        """A cell whose path is from its table's own folder, where it is there; else it is from the root."""
        path = path_to_read(cell)
        beside = path and self._beside(folder, path)
        return cell if beside is None else {**(cell or {}), "path": beside}

    def _beside(self, folder: str, path: str) -> str | None:
        """The path of an image from the root that a path from a table's folder leads to, if to any."""
        if not path.strip() or "://" in path or path.startswith(("/", "data:")):
            return None
        beside, find = posixpath.join(folder, path), self._images.find
        if find(beside, loosely=False) is not None:
            return beside
        # What lies closely by the name elsewhere is meant before what is called otherwise here.
        closer = find(path, loosely=False) is not None
        return None if closer or find(beside) is None else beside

    def is_there(self, folder: str, path: str) -> bool:
        """Whether a path that a table in a folder names, or what is written in its place, is an image's."""
        if inline_image(path) is not None or self._images.find(path) is not None:
            return True
        return self._beside(folder, path) is not None

    def _read_images(
        self, cells: list[Cell], unread: Unread
    ) -> Iterator[tuple[dict[str, Any], str | None]]:
        """Each cell's image with its bytes, and the reason where there are none."""
        for start in range(0, len(cells), IMAGES_AT_ONCE):
            part = cells[start : start + IMAGES_AT_ONCE]
            named = [path_to_read(cell) for cell in part]
            left = {path for path in named if path is not None and unread(path)}
            asked = [path for path in named if path is not None and path not in left]
            found = iter(self._images.read_images(asked))
            for cell, path in zip(part, named, strict=True):
                if path in left:
                    yield {"bytes": None, "path": path}, None
                    continue
                data, reason = next(found) if path is not None else in_cell(cell)
                yield {"bytes": data, "path": cell and cell["path"]}, reason

    def _texts(self, batch: pa.RecordBatch) -> tuple[list[list[str]], list[str | None]]:
        if not self.columns.text:
            return [[] for _ in range(batch.num_rows)], [NO_TEXTS] * batch.num_rows
        column, field = _column(batch, self.columns.text)
        if json_kinds(field) is not None:
            return json_captions(column.to_pylist())
        return captions(column.to_pylist(), text_kind(field) == "list")

    def _ids(self, batch: pa.RecordBatch) -> pa.Array:
        """The rows' ids; null where one has none, or an empty one."""
        if self.columns.id is None:
            return pa.nulls(batch.num_rows, pa.string())
        column, field = _column(batch, self.columns.id)
        if json_kinds(field) is not None:
            column = pa.array(loose_strings(column), pa.string())
        if pa.types.is_struct(column.type):
            column = column.field("path")
        if is_uuid(column.type):
            written = [
                None if value is None else str(UUID(bytes=value)) for value in column.to_pylist()
            ]
            column = pa.array(written, pa.string())
        ids = column.cast(pa.string())
        return pc.if_else(pc.equal(ids, ""), None, ids)

    def _extra(self, batch: pa.RecordBatch) -> pa.Array | None:
        if not self._extra_names:
            return None
        columns = [
            self._passed(batch, name)
            if name in batch.schema.names
            else pa.nulls(batch.num_rows, field.type)
            for name, field in zip(self._extra_names, self.extra_schema, strict=True)
        ]
        return pa.StructArray.from_arrays(columns, fields=list(self.extra_schema))

    def _passed(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """A column as it came; of objects that tell of images, less the images."""
        column, field = _column(batch, name)
        if name != self.columns.image or json_kinds(field) is None:
            return column
        return pa.array(map(without_bytes, column.to_pylist()), pa.string())


def _column(batch: pa.RecordBatch, name: str) -> tuple[pa.Array, pa.Field]:
    """A column and its field; one that these rows do not have is null."""
    at = batch.schema.get_field_index(name)
    if at < 0:
        return pa.nulls(batch.num_rows, pa.string()), pa.field(name, pa.string())
    return batch.column(at), batch.schema.field(at)
