"""The dataset that comes in: any of the forms in `pipeline.dataset.forms`, with the same columns.

A row is read with the bytes of its image and its captions, or with the reason why it has none;
whether those bytes are an image is for `pipeline.dataset.images` to say.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.dataset.cells import image_cells
from pipeline.dataset.columns import ColumnSettings, image_kind, resolve_columns, settle_columns
from pipeline.dataset.forms.base import DatasetError, Source, SourceFile
from pipeline.dataset.forms.pictures import Pictures
from pipeline.dataset.forms.registry import guess_format, open_source
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.rows import Columns
from pipeline.dataset.halves import check_images, unpacked
from pipeline.dataset.opening import (
    check_columns,
    check_tables,
    excluded_ids,
    guess_halves,
    known_schema,
    pictures_of,
    table_names,
    with_paths,
    without_rows,
)
from pipeline.dataset.settings import DatasetSettings
from pipeline.dataset.unified import Unified, Unread

__all__ = ["ColumnSettings", "Dataset", "DatasetError", "DatasetSettings", "SourceFile"]

# Forms whose files' versions take in the images already.
_WITH_IMAGES = ("imagefolder", "img2dataset")


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
    source, root, images
        What reads the files, the folder that they are in, and where images named by paths are.
    excluded
        Ids of rows to leave out; what is read here still has them, a catalog does not.
    extra_schema
        The pass-through columns, by the names that they have in the completed dataset.
    """

    def __init__(
        self,
        settings: DatasetSettings,
        format: str,
        source: Source,
        columns: ColumnSettings,
        images: Pictures,
        root: Root,
    ) -> None:
        self.settings = settings
        self.format = format
        self.excluded: frozenset[str] = frozenset()
        self.source = source
        self.images, self.root, self._by_path = images, root, False
        self._asked_for = guess_halves(settings.columns, source)
        self._read = known_schema(source, self._asked_for)
        self._unified_columns = Unified(columns, self._read, images)

    @classmethod
    def open(
        cls,
        settings: DatasetSettings,
        base: Path,
        known: Mapping[str, int] | None = None,
        folder: Path | None = None,
    ) -> Dataset:
        """Look at a dataset: its form, its columns and its first rows.

        Parameters
        ----------
        settings, base
            What to open; the folder that relative paths in it are relative to.
        known
            What another reading of it learned of its columns (`learned`).
        folder
            Where a source keeps what spares it a reading: of tars, where their members lie.

        Raises
        ------
        DatasetError
            With what to change; what lies deeper in the files is raised when they are read.
        """
        root = Root.of(settings.path, base)
        format = settings.format if settings.format != "auto" else guess_format(root)
        source = open_source(format, root, settings.quotes, folder, settings.image_prefix)
        source = with_paths(source, settings.columns)
        check_tables(source, root, settings.path, format)
        schema = known_schema(source, settings.columns)
        if not schema.names:
            raise DatasetError(f"path {settings.path!r} has no rows")
        columns = resolve_columns(guess_halves(settings.columns, source), schema)
        pictures = pictures_of(source, root, settings, base)
        dataset = cls(settings, format, source, columns, pictures, root)
        dataset.excluded = excluded_ids(settings.exclude, base)
        dataset._look()
        dataset.learn("", known or {})
        return dataset

    @property
    def columns(self) -> ColumnSettings:
        return self._unified.columns

    @property
    def has_id(self) -> bool:
        return self.columns.id is not None

    @property
    def text_is_list(self) -> bool:
        return self._unified.text_is_list

    @property
    def extra_schema(self) -> pa.Schema:
        return self._unified.extra_schema

    @property
    def passed(self) -> list[pa.Field]:
        """The pass-through columns as the source has them, in the order of `extra_schema`."""
        return self._unified.passed

    @property
    def schema(self) -> pa.Schema:
        return self._unified.schema

    @property
    def _unified(self) -> Unified:
        """What makes the columns alike, by all that was seen of them up to now."""
        read = known_schema(self.source, self._asked_for)
        if read is not self._read and not read.equals(self._read, check_metadata=True):
            settled = settle_columns(self._asked_for, self._unified_columns.columns, read)
            self._unified_columns = Unified(settled, read, self.images)
        self._read = read
        return self._unified_columns

    def learned(self, file: str | None = None) -> dict[str, int]:
        """The columns of a file, or of all, and their kinds, where they grow as files are read."""
        grown: Columns | None = getattr(self.source, "columns", None)
        if grown is None:
            return {}
        return grown.together() if file is None else grown.of(file)

    def learn(self, file: str, columns: Mapping[str, int]) -> None:
        """Take in what was learned of a file another time; "" stands for all of them."""
        grown: Columns | None = getattr(self.source, "columns", None)
        if grown is not None:
            grown.learn(file, columns)

    def found_again(self, asked: ColumnSettings) -> ColumnSettings:
        """The columns as they would be found now, with others asked for than the settings have."""
        return settle_columns(asked, self.columns, self.source.schema())

    def check_read(self) -> None:
        """Look at the columns once all rows were read; see `check_columns`."""
        check_columns(self.source, self.settings.columns, self.columns)

    @cached_property
    def files(self) -> list[SourceFile]:
        """The files, sorted by name. Looks at names and times, not into the files.

        Where rows point to image files, a version takes in those as well, so that an image that
        was added or changed makes the files that may name it new.
        """
        files = sorted(self.source.files(), key=lambda file: file.name)
        if self.format in _WITH_IMAGES or not self._by_path:
            return files
        images = self.images.listing_version()
        return [SourceFile(f.name, f.url, f"{f.version}+{images}") for f in files]

    def watch_images(self) -> bool:
        """Have the files' versions take in the images that rows name; whether they did not yet."""
        new, self._by_path = not self._by_path, True
        self.__dict__.pop("files", None)
        return new

    def batches(
        self, file: SourceFile, unread: Unread = lambda path: False
    ) -> Iterator[pa.RecordBatch]:
        """Read a file row by row, in order; at most 256 rows and about 64 MB a batch.

        Parameters
        ----------
        file
        unread
            Says of the path of an image whether to leave it unread: no bytes, and no reason either.

        Yields
        ------
        pyarrow.RecordBatch
            With `schema`: `position` (int64, the row in the file), `id` (null without an id column),
            `image` {bytes, path}, `image_reason` (null if there are bytes; see `forms.reasons`), `text`
            (the captions that are not blank), `text_reason`, and `extra` if columns pass through.

        Raises
        ------
        DatasetError
            For a file that is damaged, or has other columns than the first one.
        """
        for batch in self.source.batches(file.name, self._asked):
            yield from self._unified.batches(file.name, batch, unread)

    def stream(self, file: SourceFile, positions: np.ndarray) -> Iterator[pa.RecordBatch]:
        """Read some rows of a file, as `batches` would give them; `positions` being sorted.

        Raises
        ------
        DatasetError
            If the file has changed so that it has no such rows.
        """
        if not len(positions):
            return
        rows = 0
        for read in self.source.take(file.name, positions, self._asked):
            for batch in self._unified.batches(file.name, read):
                rows += batch.num_rows
                yield batch
        if rows != len(positions):
            raise DatasetError(f"{file.name} has no row {positions[-1]}: it has changed")

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
        while True:
            schema = self.schema
            batches = list(self.stream(file, sorted_))
            if self.schema.equals(schema):
                break
        table = pa.Table.from_batches(batches, schema)
        order = np.searchsorted(sorted_, wanted)
        if np.array_equal(order, np.arange(len(sorted_))):
            return table
        # Slices share their bytes; a take would copy all images into one array of at most 2 GB.
        return pa.concat_tables(table.slice(row, 1) for row in order.tolist())

    def image_version(self, path: str) -> str | None:
        """Changes when an image that a row names has; None where it can't be told at once."""
        return self.images.image_version(path)

    def advice(self) -> list[str]:
        """What to change about the files for them to be read faster, a line each."""
        return getattr(self.source, "advice", list)()

    @property
    def _asked(self) -> list[str] | None:
        """The columns to read, None for all, those that are not known yet too."""
        grows = getattr(self.source, "columns", None) is not None
        return None if grows and self.settings.columns.extra is None else self._unified.needed

    def _look(self) -> None:
        """Read the first rows, to find an image column that holds none and an empty dataset."""
        asked = [c for c in (self.columns.image, self.columns.text) if c]
        # Images in the cells of text files are paths, also of a column that comes late.
        self._by_path = self.format in ("jsonl", "csv", "coco")
        for name in table_names(self.source):
            for _, batch in self.source.batches(name, asked):
                if batch.num_rows == 0:
                    continue
                if self.columns.image:
                    field = batch.schema.field(0)
                    cells = list(map(unpacked, image_cells(batch.column(0).slice(0, 64), field)))
                    self._by_path |= any(c and c["bytes"] is None and c["path"] for c in cells)
                    self._by_path |= image_kind(field) == "path"
                    folder = posixpath.dirname(name)
                    check_images(self.columns.image, cells, partial(self._unified.is_there, folder))
                return
        raise without_rows(self.source, self.settings.path)
