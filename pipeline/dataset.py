"""The dataset that comes in: any of the forms in `pipeline.sources`, with the same columns.

A row is read with the bytes of its image and its captions, or with the reason why it has none;
whether those bytes are an image is for `pipeline.images` to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from pipeline.columns import (
    ColumnSettings,
    free_name,
    guess_columns,
    image_cells,
    image_kind,
    resolve_columns,
    text_kind,
)
from pipeline.halves import (
    Cell,
    captions,
    check_images,
    check_utf8,
    in_cell,
    path_to_read,
)
from pipeline.images import DECODE_SECONDS, MAX_PIXELS
from pipeline.sources.base import (
    BATCH_BYTES,
    Batch,
    DatasetError,
    Source,
    SourceFile,
)
from pipeline.sources.forms import guess_format, open_source
from pipeline.sources.root import Root, is_image

__all__ = [
    "ColumnSettings",
    "Dataset",
    "DatasetError",
    "DatasetSettings",
    "SourceFile",
    "guess_columns",
    "guess_format",
]

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# Images that are read by their paths at the same time, where that takes a server.
IMAGES_AT_ONCE = 32


class DatasetSettings(BaseModel):
    """Where a dataset is, and how to read it."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        min_length=1,
        description="File, folder or glob, local (relative to the config) or an fsspec URL.",
    )
    format: Literal[
        "auto", "parquet", "imagefolder", "jsonl", "csv", "webdataset", "img2dataset"
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
    image_root: str | None = Field(
        default=None,
        description="Folder that paths of images are relative to and may not leave;"
        " the dataset's own folder if left out.",
    )
    exclude: str | None = Field(
        default=None,
        description="Text file with the ids of rows to leave out, one a line.",
    )


class Dataset:
    """An incomplete image-text dataset. Made by `Dataset.open`.

    Attributes
    ----------
    settings
        As given.
    format
        The form, found out where the settings say "auto".
    columns
        The columns in use, None where there is none: `id`, `image`, `text`, and `extra`.
    text_is_list
        Whether the text column holds lists of captions.
    has_id
        Whether there is a column of ids.
    excluded
        Ids of rows to leave out; what is read here still has them, a catalog does not.
    extra_schema
        The pass-through columns. One with a name that the completed dataset has itself is called
        `source_NAME`.
    """

    def __init__(
        self,
        settings: DatasetSettings,
        format: str,
        source: Source,
        columns: ColumnSettings,
        images: Root,
    ) -> None:
        self.settings = settings
        self.format = format
        self.columns = columns
        self.has_id = columns.id is not None
        self.excluded: frozenset[str] = frozenset()
        self._source = source
        self._images = images
        schema = source.schema()
        self.text_is_list = bool(columns.text) and text_kind(schema.field(columns.text)) == "list"
        self._extra_names = list(columns.extra or ())
        taken = set(schema.names)
        self.extra_schema = pa.schema(
            [
                field.with_name(free_name(field.name, taken)).remove_metadata()
                for field in map(schema.field, self._extra_names)
            ]
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

    @classmethod
    def open(cls, settings: DatasetSettings, base: Path) -> Dataset:
        """Look at a dataset: its form, its columns and its first rows.

        Parameters
        ----------
        settings
            What to open.
        base
            The folder that relative paths in the settings are relative to.

        Raises
        ------
        DatasetError
            If it cannot be used as it is, with what to change. What lies deeper in the files
            (drift of columns, cut files, text that is not UTF-8, null ids) is raised when they
            are read.
        """
        root = Root.of(settings.path, base)
        format = settings.format if settings.format != "auto" else guess_format(root)
        source = open_source(format, root)
        if not _has_files(source):
            raise DatasetError(f"path {settings.path!r} holds no file of format {format}")
        schema = source.schema()
        if not schema.names:
            raise DatasetError(f"path {settings.path!r} has no rows")
        columns = resolve_columns(settings.columns, schema)
        images = Root.of(settings.image_root, base) if settings.image_root else root
        dataset = cls(settings, format, source, columns, Root(images.fs, images.path))
        dataset.excluded = _excluded(settings.exclude, base)
        dataset._look()
        return dataset

    @cached_property
    def files(self) -> list[SourceFile]:
        """The files, sorted by name. Looks at names and times, not into the files.

        Where rows point to image files, a version takes in those as well, so that an image that
        was added or changed makes the files that may name it new.
        """
        files = sorted(self._source.files(), key=lambda file: file.name)
        if self.format in ("imagefolder", "img2dataset") or not self._by_path:
            return files
        images = self._images.listing_version([n for n in self._images.names() if is_image(n)])
        return [SourceFile(f.name, f.url, f"{f.version}+{images}") for f in files]

    def batches(self, file: SourceFile) -> Iterator[pa.RecordBatch]:
        """Read a file row by row, in order; at most 256 rows and about 64 MB a batch.

        Yields
        ------
        pyarrow.RecordBatch
            With `schema`: `position` (int64, the row in the file), `id` (null only without an id
            column), `image` {bytes, path}, `image_reason` (null if there are bytes, else "absent",
            "null", "empty", "url", "outside", "not found", "not readable", "not a file",
            "too large", or what img2dataset said), `text` (the captions that are not blank),
            `text_reason` (null if there is one, else "absent", "null", "empty", "whitespace",
            "invisible characters"), and `extra` if columns pass through.

        Raises
        ------
        DatasetError
            For a file that is damaged, has other columns than the first one, text that is not
            UTF-8, or a null id.
        """
        for batch in self._source.batches(file.name, self._needed):
            yield from self._unify(file.name, batch)

    def fetch(self, file: SourceFile, positions: Sequence[int]) -> pa.Table:
        """Read some rows of a file, as `batches` would give them, in the order asked for.

        Raises
        ------
        DatasetError
            If the file has changed so that it has no such rows.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        sorted_ = np.unique(wanted)
        if len(sorted_) and sorted_[0] < 0:
            raise DatasetError(f"{file.name} has no row {sorted_[0]}")
        read = self._source.take(file.name, sorted_, self._needed) if len(sorted_) else iter(())
        parts = [part for batch in read for part in self._unify(file.name, batch)]
        table = pa.Table.from_batches(parts, self.schema)
        if table.num_rows != len(sorted_):
            raise DatasetError(f"{file.name} has no row {sorted_[-1]}: it has changed")
        order = np.searchsorted(sorted_, wanted)
        if np.array_equal(order, np.arange(len(sorted_))):
            return table
        # Slices share their bytes; a take would copy all images into one array of at most 2 GB.
        return pa.concat_tables(table.slice(row, 1) for row in order.tolist())

    @cached_property
    def _needed(self) -> list[str]:
        asked = [self.columns.id, self.columns.image, self.columns.text]
        return list(dict.fromkeys([c for c in asked if c] + self._extra_names))

    def _look(self) -> None:
        """Read the first rows, to find an image column that holds none and an empty dataset."""
        asked = [c for c in (self.columns.image, self.columns.text) if c]
        self._by_path = False
        for name in _names(self._source):
            for _, batch in self._source.batches(name, asked):
                if batch.num_rows == 0:
                    continue
                if self.columns.image:
                    cells = image_cells(batch.column(0).slice(0, 64))
                    self._by_path = any(c and c["bytes"] is None and c["path"] for c in cells)
                    self._by_path |= image_kind(batch.schema.field(0)) == "path"
                    check_images(self.columns.image, cells)
                return
        raise DatasetError(f"path {self.settings.path!r} has no rows")

    def _unify(self, name: str, read: Batch) -> Iterator[pa.RecordBatch]:
        positions, batch = read
        if batch.num_rows == 0:
            return
        for field, column in zip(batch.schema, batch.columns, strict=True):
            check_utf8(name, positions, field.name, column)
        ids = self._ids(name, positions, batch)
        texts, text_reasons = (
            captions(batch.column(self.columns.text).to_pylist(), self.text_is_list)
            if self.columns.text
            else ([[]] * batch.num_rows, ["absent"] * batch.num_rows)
        )
        extra = self._extra(batch)
        cells: list[Cell] = (
            image_cells(batch.column(self.columns.image))
            if self.columns.image
            else [{"bytes": None, "path": None, "reason": "absent"}] * batch.num_rows
        )
        start, size = 0, 0
        images: list[dict[str, Any]] = []
        reasons: list[str | None] = []
        for row, (image, reason) in enumerate(self._read_images(cells)):
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

    def _read_images(self, cells: list[Cell]) -> Iterator[tuple[dict[str, Any], str | None]]:
        """Each cell's image with its bytes, and the reason where there are none."""
        for start in range(0, len(cells), IMAGES_AT_ONCE):
            part = cells[start : start + IMAGES_AT_ONCE]
            asked = [path_to_read(cell) for cell in part]
            found = iter(self._images.read_images([path for path in asked if path is not None]))
            for cell, path in zip(part, asked, strict=True):
                data, reason = next(found) if path is not None else in_cell(cell)
                yield {"bytes": data, "path": cell and cell["path"]}, reason

    def _ids(self, name: str, positions: np.ndarray, batch: pa.RecordBatch) -> pa.Array:
        if self.columns.id is None:
            return pa.nulls(batch.num_rows, pa.string())
        column = batch.column(self.columns.id)
        if pa.types.is_struct(column.type):
            column = column.field("path")
        ids = column.cast(pa.string())
        for row, value in enumerate(ids.to_pylist()):
            if not value:
                kind = "null" if value is None else "empty"
                raise DatasetError(
                    f"{name}, row {positions[row]}: the id (column {self.columns.id!r}) is {kind};"
                    " give every row an id, or set columns.id to 'none'"
                )
        return ids

    def _extra(self, batch: pa.RecordBatch) -> pa.Array | None:
        if not self._extra_names:
            return None
        columns = [batch.column(name) for name in self._extra_names]
        return pa.StructArray.from_arrays(columns, fields=list(self.extra_schema))


def _excluded(name: str | None, base: Path) -> frozenset[str]:
    """The ids in the file of rows to leave out."""
    if name is None:
        return frozenset()
    try:
        lines = (base / name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"exclude {name!r} can't be read: {error}") from None
    return frozenset(line.strip() for line in lines if line.strip())


def _has_files(source: Source) -> bool:
    return next(iter(_names(source)), None) is not None


def _names(source: Source) -> list[str]:
    names = getattr(source, "names", None)
    return names() if names else [file.name for file in source.files()]
