"""Folders of image files, described by `metadata.jsonl`, `.csv` or `.parquet` beside them.

The metadata's `file_name` is relative to the metadata's own folder, as Hugging Face has it, or to the
root where no such image is there. Images that no metadata names are rows as well. A text that the
metadata has not may lie in a file beside its image (see `pipeline.dataset.forms.sidecars`).
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipeline.dataset.forms import called
from pipeline.dataset.forms.base import (
    BATCH_ROWS,
    IMAGE_CELL,
    Batch,
    DatasetError,
    Left,
    SourceFile,
    is_string,
)
from pipeline.dataset.forms.csv_records import Quotes
from pipeline.dataset.forms.faulty import FAULT, add_faults, utf8_strings
from pipeline.dataset.forms.kinds import json_kinds, loose_strings
from pipeline.dataset.forms.metadata import is_metadata, open_metadata, path_from, strings_of
from pipeline.dataset.forms.names import is_image
from pipeline.dataset.forms.pictures import Pictures
from pipeline.dataset.forms.reasons import is_visible
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.rows import Columns
from pipeline.dataset.forms.sidecars import Answer, Sidecars
from pipeline.storage.digests import digest

FILE_NAME = "file_name"
TEXT = "text"
# What the column that names the images may be called, in lower case.
_NAMING = dict.fromkeys(
    (FILE_NAME, "filename", "file", "image_file_name", "image_path", "file_path", *called.IMAGES)
)

# The images of a folder that no metadata names are a file of the dataset by this name.
_REST = "* (pictures without metadata)"
_UNREAD = "rows that can't be read, which may be of pictures that no other row names"


class ImageFolderSource:
    """All image files below a root, with their metadata."""

    def __init__(self, root: Root, quotes: Quotes = "auto", prefix: str | None = None) -> None:
        self.root = root
        names = root.names()
        self._metadata = root.filled(n for n in names if is_metadata(n))
        pictured = [f for f in root.folders() if root.images(f)]
        self._sidecars = Sidecars(root, [n for f in pictured for n in root.images(f)])
        self._folders = sorted({*pictured, *self._sidecars.alone})
        self._table = open_metadata(root, self._metadata, quotes)
        # What reads the pictures finds them too, lest one that is named is a row of its own.
        self.pictures = Pictures(root, prefix)
        self._named: tuple[set[str], Left] | None = None
        self._rest_of: tuple[str, list[str]] | None = None

    def used(self) -> list[str]:
        """The metadata, and the texts beside images."""
        if not self._reads_sidecars:
            return self._metadata
        alone = [name for names in self._sidecars.alone.values() for name in names]
        return self._metadata + list(self._sidecars.names.values()) + alone

    def files(self) -> list[SourceFile]:
        # What an image file holds may change while the metadata stays, so a version takes in both.
        images = {f: self.root.listing_version(self._beside(f)) for f in self._folders}
        known = self.root.listing_version(self._metadata)
        found = [self._file(name, self.root.version(name), images) for name in self._metadata]
        for folder, version in images.items():
            name = posixpath.join(folder, _REST)
            found.append(SourceFile(name, self.root.url(name), f"{version}+{known}"))
        return sorted(found, key=lambda file: file.name)

    @property
    def halves(self) -> dict[str, str]:
        """The column of images, and that of texts where they lie beside them."""
        return {"image": self._naming} | ({"text": self._text} if self._reads_sidecars else {})

    @property
    def columns(self) -> Columns | None:
        """Those of the metadata, where they grow as they are read."""
        return getattr(self._table, "columns", None)

    def schema(self) -> pa.Schema:
        schema = pa.schema([]) if self._table is None else self._table.schema()
        cell = pa.field(self._naming, IMAGE_CELL)
        at = schema.get_field_index(self._naming)
        schema = schema.append(cell) if at < 0 else schema.set(at, cell)
        if self._sidecars.names and self._text not in schema.names:
            schema = schema.append(pa.field(self._text, pa.string()))
        return schema

    def batches(self, name: str, columns: Sequence[str] | None) -> Iterator[Batch]:
        if posixpath.basename(name) == _REST:
            yield from self._rest(posixpath.dirname(name), columns)
        else:
            assert self._table is not None
            read = self._table.batches(name, self._asked(columns))
            yield from self._described(name, read, columns)

    def take(
        self, name: str, positions: np.ndarray, columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        if posixpath.basename(name) == _REST:
            yield from self._rest(posixpath.dirname(name), columns, positions)
        else:
            assert self._table is not None
            read = self._table.take(name, positions, self._asked(columns))
            yield from self._described(name, read, columns)

    @cached_property
    def _naming(self) -> str:
        """The metadata's column that names the images."""
        if self._table is None:
            return FILE_NAME
        schema = self._table.schema()
        texts = {n.lower(): n for n in reversed(schema.names) if is_string(schema.field(n).type)}
        found = next((texts[n] for n in _NAMING if n in texts), None)
        if found is None:
            raise DatasetError(
                f"{self._metadata[0]} has no column {FILE_NAME!r} that names the images"
                f" (columns: {', '.join(schema.names)})"
            )
        return found

    @cached_property
    def _text(self) -> str:
        """The column of texts: the metadata's own, or one for the texts beside the images."""
        names = [] if self._table is None else self._table.schema().names
        lower = {n.lower(): n for n in reversed(names)}
        return next((lower[n] for n in called.TEXTS if n in lower), TEXT)

    @cached_property
    def _reads_sidecars(self) -> bool:
        found = self.schema()
        return bool(self._sidecars.names) and is_string(found.field(self._text).type)

    def _beside(self, folder: str) -> list[str]:
        """The images of a folder, and their texts."""
        images = self.root.images(folder)
        texts = self._sidecars.names
        beside = [texts[name] for name in images if name in texts]
        return images + beside + self._sidecars.alone.get(folder, [])

    def _asked(self, columns: Sequence[str] | None) -> list[str] | None:
        """The columns of the metadata that take part in those that are asked for."""
        assert self._table is not None
        if columns is None:
            return None
        beside = self._text if self._reads_sidecars else None
        held = self._table.schema().names
        asked = [column for column in columns if column != beside or column in held]
        needs_names = beside in columns and self._naming not in asked
        return asked + [self._naming] * needs_names

    def _described(
        self, name: str, read: Iterator[Batch], columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        """Batches of the metadata, with the images' cells and the texts beside them."""
        folder = posixpath.dirname(name)
        for positions, batch in read:
            fields = {field.name: field for field in batch.schema}
            arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
            wanted = list(fields) if columns is None else list(columns)
            if self._naming in fields:
                named, unread = strings_of(batch, self._naming)
                paths = [p and self._located(folder, p) for p in named]
                add_faults(fields, arrays, unread)
                fields[self._naming] = pa.field(self._naming, IMAGE_CELL)
                arrays[self._naming] = pa.array([{"path": path} for path in paths], IMAGE_CELL)
                if self._reads_sidecars and (columns is None or self._text in columns):
                    wanted += [self._text] * (self._text not in wanted)
                    field = fields.setdefault(self._text, pa.field(self._text, pa.string()))
                    held = arrays.get(self._text)
                    arrays[self._text], faults = self._filled(field, held, paths)
                    add_faults(fields, arrays, faults)
            wanted += [FAULT] * (FAULT in fields and FAULT not in wanted)
            schema = pa.schema([fields[column] for column in wanted])
            found = [arrays[column] for column in wanted]
            yield positions, pa.RecordBatch.from_arrays(found, schema=schema)

    def _filled(
        self, field: pa.Field, held: pa.Array | None, paths: Sequence[str | None]
    ) -> tuple[pa.Array, list[str | None]]:
        """The metadata's texts, where it has none the one beside the image; and why one can't be read."""
        held = pa.nulls(len(paths), field.type) if held is None else held
        texts, faults = utf8_strings(held, field.name)
        told = texts if json_kinds(field) is None else loose_strings(held)
        for row, path in enumerate(paths):
            if is_visible(told[row] or "") or faults[row] or path is None:
                continue
            beside, faults[row] = self._sidecars.read(self._place(path))
            if beside is not None:
                texts[row] = beside if json_kinds(field) is None else json.dumps(beside)
        return pa.array(texts, field.type), faults

    def _cell(self, name: str) -> dict[str, str] | None:
        return {"path": name} if is_image(name) else None

    def _beside_text(self, name: str) -> Answer:
        return self._sidecars.read(name) if is_image(name) else self._sidecars.text(name)

    def _place(self, path: str, loosely: bool = True) -> str:
        """The image of the folder that a path in the metadata means."""
        place = self.pictures.find(path, loosely)
        name = posixpath.normpath(place) if isinstance(place, str) else path
        return name if name in self.root else path

    def _located(self, folder: str, path: str) -> str:
        """A path in the metadata of a folder from the root; some are from there, and lead nowhere else."""
        either = path_from(folder, path), path_from("", path)
        found = (p for how in (False, True) for p in either if self._place(p, how) in self.root)
        return next(found, either[0])

    def _file(self, name: str, version: str, images: dict[str, str]) -> SourceFile:
        folder = posixpath.dirname(name)
        inside = (i for i in images if not folder or i == folder or i.startswith(f"{folder}/"))
        below = digest(*(part for inner in inside for part in (inner, images[inner])))
        return SourceFile(name, self.root.url(name), f"{version}+{below}")

    def left(self, name: str) -> dict[str, Left]:
        """The rows of the metadata that can't be read, where they may be of images that none names."""
        if posixpath.basename(name) != _REST or not self._names_in_metadata()[1].count:
            return {}
        first = next((folder for folder in self._folders if self._unnamed(folder)), None)
        told = first == posixpath.dirname(name)
        return {_UNREAD: self._names_in_metadata()[1]} if told else {}

    def described(self) -> set[str]:
        """The images that the metadata names."""
        return self._names_in_metadata()[0]

    def _names_in_metadata(self) -> tuple[set[str], Left]:
        """The images that the metadata names, and its rows that can't be read and name none."""
        if self._named is None:
            self._named = set[str](), Left()
            for name in self._metadata:
                self._look_for_names(name, *self._named)
        return self._named

    def _look_for_names(self, name: str, named: set[str], unread: Left) -> None:
        assert self._table is not None
        folder = posixpath.dirname(name)
        # A mask beside an image is no row of its own (Hugging Face: `mask_file_name`).
        others = [n for n in self._table.schema().names if n.endswith(f"_{FILE_NAME}")]
        for positions, batch in self._table.batches(name, [self._naming, *others]):
            paths, faults = strings_of(batch, self._naming)
            for held in (paths, *(strings_of(batch, other)[0] for other in others)):
                named.update(self._place(self._located(folder, path)) for path in held if path)
            if FAULT in batch.schema.names:
                faults = batch.column(FAULT).to_pylist()
            for position, path, fault in zip(positions, paths, faults, strict=True):
                if fault and not path:
                    unread.add(f"{name}, row {position}")

    def _unnamed(self, folder: str) -> list[str]:
        """The images right in a folder that no metadata names, in order; then texts without one."""
        named, _ = self._names_in_metadata()
        if self._rest_of is None or self._rest_of[0] != folder:
            names = [n for n in self.root.images(folder) if n not in named]
            names += self._sidecars.alone.get(folder, []) if self._reads_sidecars else []
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
            part_names = [names[position] for position in part]
            fields, arrays = {}, {}
            for column in columns:
                known = column in schema.names
                fields[column] = schema.field(column) if known else pa.field(column, pa.string())
                kind = fields[column].type
                if column == self._naming:
                    arrays[column] = pa.array([self._cell(name) for name in part_names], kind)
                elif column == self._text and self._reads_sidecars:
                    texts, faults = zip(*map(self._beside_text, part_names), strict=True)
                    arrays[column] = pa.array(texts, kind)
                    add_faults(fields, arrays, list(faults))
                else:
                    arrays[column] = pa.nulls(len(part), kind)
            schema_of_part = pa.schema(list(fields.values()))
            yield part, pa.RecordBatch.from_arrays(list(arrays.values()), schema=schema_of_part)
