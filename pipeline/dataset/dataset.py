"""The dataset that comes in: any of the forms in `pipeline.dataset.forms`, with the same columns.

A row is read with the bytes of its image and its captions, or with the reason why it has none;
whether those bytes are an image is for `pipeline.dataset.images` to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.dataset.columns import (
    ColumnSettings,
    guess_columns,
    image_cells,
    image_kind,
)
from pipeline.dataset.forms.base import DatasetError, Source, SourceFile
from pipeline.dataset.forms.names import is_about
from pipeline.dataset.forms.pictures import Pictures
from pipeline.dataset.forms.registry import guess_format, open_source
from pipeline.dataset.forms.root import Root
from pipeline.dataset.halves import check_images, check_utf8, unpacked
from pipeline.dataset.settings import DatasetSettings
from pipeline.dataset.settled import NoColumns, Settled
from pipeline.dataset.unified import Unified, Unread

__all__ = [
    "ColumnSettings",
    "Dataset",
    "DatasetError",
    "DatasetSettings",
    "SourceFile",
    "guess_columns",
    "guess_format",
]


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
        columns: Settled,
        images: Pictures,
        root: Root,
    ) -> None:
        self.settings = settings
        self.format = format
        self.excluded: frozenset[str] = frozenset()
        self._source = source
        self._settled = columns
        self._images = images
        self._root = root
        # What its readers say of the columns, and ask of them.
        self.learned, self.learn = columns.learned, columns.learn
        self.found_again, self.check_read = columns.again, columns.check_read

    @classmethod
    def open(
        cls, settings: DatasetSettings, base: Path, known: Mapping[str, int] | None = None
    ) -> Dataset:
        """Look at a dataset: its form, its columns and its first rows.

        Parameters
        ----------
        settings
            What to open.
        base
            The folder that relative paths in the settings are relative to.
        known
            What another reading of it learned of its columns (`learned`).

        Raises
        ------
        DatasetError
            If it cannot be used as it is, with what to change. What lies deeper in the files
            (drift of columns, cut files, text that is not UTF-8, null ids) is raised when they
            are read.
        """
        root = Root.of(settings.path, base)
        format = settings.format if settings.format != "auto" else guess_format(root)
        source = open_source(format, root, settings.quotes)
        if not _has_files(source):
            raise DatasetError(f"path {settings.path!r} holds no file of format {format}")
        pictures = Pictures(Root.of(settings.image_root, base) if settings.image_root else root)
        try:
            columns = Settled(source, settings.columns, pictures)
        except NoColumns:
            raise DatasetError(f"path {settings.path!r} has no rows") from None
        dataset = cls(settings, format, source, columns, pictures, root)
        dataset.excluded = _excluded(settings.exclude, base)
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
    def schema(self) -> pa.Schema:
        return self._unified.schema

    @property
    def _unified(self) -> Unified:
        return self._settled.unified

    @cached_property
    def files(self) -> list[SourceFile]:
        """The files, sorted by name. Looks at names and times, not into the files.

        Where rows point to image files, a version takes in those as well, so that an image that
        was added or changed makes the files that may name it new.
        """
        files = sorted(self._source.files(), key=lambda file: file.name)
        if self.format in _WITH_IMAGES or not self._by_path:
            return files
        images = self._images.listing_version()
        return [SourceFile(f.name, f.url, f"{f.version}+{images}") for f in files]

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
            With `schema`: `position` (int64, the row in the file), `id` (null only without an id
            column), `image` {bytes, path}, `image_reason` (null if there are bytes; see
            `pipeline.dataset.forms.reasons`), `text` (the captions that are not blank),
            `text_reason` (null if there is one), and `extra` if columns pass through.

        Raises
        ------
        DatasetError
            For a file that is damaged, has other columns than the first one, text that is not
            UTF-8, or a null id.
        """
        for batch in self._source.batches(file.name, self._settled.to_read):
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
        for read in self._source.take(file.name, positions, self._settled.to_read):
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
        return self._images.image_version(path)

    def advice(self) -> list[str]:
        """What to change about the files for them to be read faster, a line each."""
        return getattr(self._source, "advice", list)()

    def unused(self, named: Iterable[str]) -> list[str]:
        """The files of the dataset's folder that hold data by their names, and that are not read.

        Parameters
        ----------
        named
            Paths of the images that rows name.
        """
        used = set(getattr(self._source, "used", lambda: _names(self._source))())
        left = [n for n in self._root.names() if n not in used and not is_about(n)]
        if not left:
            return []
        known, own = set(self._root.names()), self._images.root.path == self._root.path
        for path in named:
            place = path if path in known and own else self._images.find(path)
            if isinstance(place, tuple):
                place = place[0]
            if place is not None and own:
                used.add(place)
        return [name for name in left if name not in used]

    def _look(self) -> None:
        """Read the first rows, to find an image column that holds none and an empty dataset."""
        asked = [c for c in (self.columns.image, self.columns.text) if c]
        # Images in the cells of text files are paths, also of a column that comes late.
        self._by_path = self.format in ("jsonl", "csv")
        for name in _names(self._source):
            for positions, batch in self._source.batches(name, asked):
                if batch.num_rows == 0:
                    continue
                for field, column in zip(batch.schema, batch.columns, strict=True):
                    check_utf8(name, positions, field.name, column)
                if self.columns.image:
                    cells = image_cells(batch.column(0).slice(0, 64), batch.schema.field(0))
                    cells = list(map(unpacked, cells))
                    self._by_path |= any(c and c["bytes"] is None and c["path"] for c in cells)
                    self._by_path |= image_kind(batch.schema.field(0)) == "path"
                    check_images(self.columns.image, cells)
                return
        raise DatasetError(f"path {self.settings.path!r} has no rows")


def _has_files(source: Source) -> bool:
    return next(iter(_names(source)), None) is not None


def _names(source: Source) -> list[str]:
    names = getattr(source, "names", None)
    return names() if names else [file.name for file in source.files()]


def _excluded(name: str | None, base: Path) -> frozenset[str]:
    """The ids in the file of rows to leave out."""
    if name is None:
        return frozenset()
    try:
        lines = (base / name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"exclude {name!r} can't be read: {error}") from None
    return frozenset(line.strip() for line in lines if line.strip())
