"""WebDataset shards: tar files whose members of one name before the first dot are one row.

The columns are `__key__`, `image` (the member with an image's extension), the keys of a `.json`
member, and every other member under its extension, a second picture too. A key that is also the
extension of a member stands under `json.KEY` where the two differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from pipeline.dataset.forms.base import (
    BATCH_BYTES,
    BATCH_ROWS,
    IMAGE_CELL,
    MAX_IMAGE_BYTES,
    Batch,
    DatasetError,
    Left,
    SourceFile,
)
from pipeline.dataset.forms.faulty import FaultyRow
from pipeline.dataset.forms.names import IMAGE_SUFFIXES, is_image, plain_name
from pipeline.dataset.forms.readings import Readings
from pipeline.dataset.forms.reasons import EMPTY_FILE, NOT_UTF8, OUTSIDE, TOO_LARGE, TWICE, about
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.rows import Columns, with_empty
from pipeline.dataset.forms.strict_json import parse
from pipeline.dataset.forms.tar_index import TarIndex, TarIndexes
from pipeline.dataset.forms.tars import NOWHERE, Member, opened, read_member

KEY = "__key__"
IMAGE = "image"
TAR_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz")
TEXT_NAMES = ("text", "caption", "captions", "txt")

_HEAD_SAMPLES = 256
_TEXT_MEMBERS = ("txt", "text", "caption", "cls", "cls2", "index", "inx", "id")


class WebDatasetSource:
    """Every tar below a root."""

    # May be named as a column before any sample has it.
    expected = ("txt",)
    halves: Mapping[str, str] = {"image": IMAGE}

    def __init__(self, root: Root) -> None:
        self.root = root
        self.columns = Columns([pa.field(KEY, pa.string()), pa.field(IMAGE, IMAGE_CELL)])
        self._looked = False
        self._indexes = TarIndexes(root)
        self._readings = Readings()

    def keep_in(self, folder: Path) -> None:
        """Keep there where the members of the tars lie."""
        self._indexes.folder = folder

    def names(self) -> list[str]:
        names = [n for n in self.root.names() if plain_name(n).endswith(TAR_SUFFIXES)]
        return self.root.filled(names)

    def files(self) -> list[SourceFile]:
        return [SourceFile(n, self.root.url(n), self.root.version(n)) for n in self.names()]

    def schema(self) -> pa.Schema:
        if not self._looked:
            self._look()
            self._looked = True
        found = self.columns.schema()
        if any(name in TEXT_NAMES for name in found.names):
            return found
        return with_empty(found, self.expected)

    def batches(self, name: str, columns: Sequence[str] | None) -> Iterator[Batch]:
        yield from self._read(name, range(len(self.index(name))), columns)

    def take(
        self, name: str, positions: np.ndarray, columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        index = self.index(name)
        if len(positions) and positions[-1] >= len(index):
            raise DatasetError(f"{name} has no row {positions[-1]}: it has changed")
        if not index.compressed:
            yield from self._read(name, positions.tolist(), columns)
            return
        # Batches that were made before a column widened are not gone on with.
        kinds = tuple(self.columns.schema())
        key = (name, self.root.version(name), columns and tuple(columns), kinds)
        yield from self._readings.take(key, positions, lambda: self.batches(name, columns))

    def left(self, name: str) -> Mapping[str, Left]:
        """What a shard holds and no sample has."""
        return self.index(name).left

    def index(self, name: str) -> TarIndex:
        """Where the members of a shard lie."""
        return self._indexes.of(name)

    def _look(self) -> None:
        """See the columns of the first samples."""
        name = self.names()[0]
        index = self.index(name)
        with self.root.open(name) as file, opened(name, file, index.unpacked) as plain:
            for key, members in index.samples(range(min(_HEAD_SAMPLES, len(index)))):
                self.columns.see(name, [_row(name, key, members, plain, frozenset())])

    def _read(
        self, name: str, positions: Sequence[int], columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        index = self.index(name)
        wanted = None if columns is None else frozenset(columns)
        held: list[dict[str, Any]] = []
        numbers: list[int] = []
        size = 0
        with self.root.open(name) as file, opened(name, file, index.unpacked) as plain:
            for position, sample in zip(positions, index.samples(positions), strict=True):
                held.append(_row(name, *sample, plain, wanted))
                numbers.append(position)
                size += len((held[-1].get(IMAGE) or {}).get("bytes") or b"")
                if len(held) == BATCH_ROWS or size >= BATCH_BYTES:
                    yield self._batch(name, numbers, held, columns)
                    held, numbers, size = [], [], 0
            if held:
                yield self._batch(name, numbers, held, columns)

    def _batch(
        self,
        name: str,
        positions: list[int],
        rows: list[dict[str, Any]],
        columns: Sequence[str] | None,
    ) -> Batch:
        where = [f"{name}, sample {row[KEY]}" for row in rows]
        batch = self.columns.batch(name, rows, columns, where)
        return np.array(positions, dtype=np.int64), batch


def _row(
    name: str, key: str, members: list[Member], file: IO[bytes], columns: frozenset[str] | None
) -> dict[str, Any]:
    """A sample's columns; the picture's bytes only where they are asked for."""
    row: dict[str, Any] = {KEY: key}
    fault = None
    picture = _picture(members)
    json_member = None
    for member in members:
        place = f"{key}.{member.extension}"
        if member is picture:
            row[IMAGE] = _cell(name, key, member, file, columns is None or IMAGE in columns)
        elif member.offset == NOWHERE:
            continue
        elif member.extension == "json" and json_member is None:
            json_member = member
        else:
            data = read_member(name, file, member)
            column = _column_of(member.extension)
            value = _text(data) if column in _TEXT_MEMBERS else data
            if value is None:
                fault = about(NOT_UTF8, place)
            elif row.setdefault(column, value) != value:
                fault = about(TWICE, place)
    if json_member is not None:
        text = _text(read_member(name, file, json_member))
        found = FaultyRow({}, about(NOT_UTF8, f"{key}.json")) if text is None else parse(text)
        fault = found.fault if isinstance(found, FaultyRow) else fault
        for field, value in found.items() if isinstance(found, dict) else [("json", found)]:
            if field in (KEY, IMAGE) or (field in row and row[field] != value):
                row[f"json.{field}"] = value
            else:
                row[field] = value
    return row if fault is None else FaultyRow(row, fault)


def _column_of(extension: str) -> str:
    """The column of a member: its extension, but for the text of `001.jpg` that is `001.jpg.txt`."""
    stem, _, last = extension.rpartition(".")
    return last if last in _TEXT_MEMBERS and is_image(f".{stem}") else extension


def _picture(members: list[Member]) -> Member | None:
    """The picture of a sample: of several the one whose extension comes first in our list.

    Where none has an image's extension alone, the first that ends in one (`left.jpg`).
    """
    found = [m for m in members if f".{m.extension}" in IMAGE_SUFFIXES]
    if not found:
        return next((m for m in members if is_image(m.extension)), None)
    return min(found, key=lambda m: IMAGE_SUFFIXES.index(f".{m.extension}"))


def _cell(name: str, key: str, member: Member, file: IO[bytes], read: bool) -> dict[str, Any]:
    path = f"{key}.{member.extension}"
    if member.offset == NOWHERE:
        return {"path": path, "reason": OUTSIDE}
    if member.size == 0:
        return {"path": path, "reason": about(EMPTY_FILE, path)}
    if member.size > MAX_IMAGE_BYTES:
        return {"path": path, "reason": TOO_LARGE}
    return {"bytes": read_member(name, file, member), "path": path} if read else {"path": path}


def _text(data: bytes) -> str | None:
    """The text of a member without a mark of its byte order, None where it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
