"""JSON tables: a row a line, or as `pipeline.dataset.forms.json_rows` has them; images named by their paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa

from pipeline.dataset.forms.base import (
    BATCH_BYTES,
    BATCH_ROWS,
    Batch,
    DatasetError,
    SourceFile,
    select_rows,
)
from pipeline.dataset.forms.compressed import compression, damage_named, plain
from pipeline.dataset.forms.faulty import Faults, FaultyRow, images_in_json
from pipeline.dataset.forms.json_reader import IS_UTF_16, UTF_16
from pipeline.dataset.forms.json_rows import (
    JSONL_SUFFIXES,
    is_lines,
    json_rows,
    picture_tables,
    with_answer,
    wrong_tables,
)
from pipeline.dataset.forms.names import is_about, plain_name
from pipeline.dataset.forms.readings import Readings
from pipeline.dataset.forms.reasons import NO_OBJECT, NOT_JSON, NOT_UTF8, about
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.rows import HEAD_BYTES, HEAD_ROWS, Columns
from pipeline.dataset.forms.strict_json import parse

# Every so many lines the place in the file is noted, for reading named rows.
_MARK_EVERY = 256
# What a last line is that was cut off.
_OF_CUT = (NOT_JSON, NOT_UTF8, NO_OBJECT)


class JsonLinesSource:
    """JSON Lines files, an object a line; or JSON files (see `pipeline.dataset.forms.json_rows`)."""

    def __init__(self, root: Root, names: Sequence[str] | None = None) -> None:
        self.root = root
        self._names = list(names) if names is not None else None
        self.columns = Columns()
        self._looked = False
        self._marks: dict[tuple[str, str], list[int]] = {}
        self._lines: dict[tuple[str, str], bool] = {}
        self._readings = Readings()

    def names(self) -> list[str]:
        if self._names is not None:
            return self._names
        names = [n for n in self.root.names() if not is_about(n)]
        lines = [n for n in names if plain_name(n).endswith(JSONL_SUFFIXES)]
        if lines:
            return self.root.filled(lines)
        # Of files that are called JSON, those that name images, else all.
        self._names = (
            picture_tables(self.root)
            or wrong_tables(self.root)
            or self.root.filled(n for n in names if plain_name(n).endswith(".json"))
        )
        return self._names

    def files(self) -> list[SourceFile]:
        return [SourceFile(n, self.root.url(n), self.root.version(n)) for n in self.names()]

    def schema(self) -> pa.Schema:
        if not self._looked:
            for name in self.names():
                self.columns.see(name, self._head(name))
            self._looked = True
        return self.columns.schema()

    def batches(self, name: str, columns: Sequence[str] | None) -> Iterator[Batch]:
        with self.root.open(name) as file, damage_named(name):
            yield from self._read(name, _rows(name, plain(file)), 0, columns)

    def take(
        self, name: str, positions: np.ndarray, columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        if not self._is_lines(name):
            # Batches that were made before a column widened are not gone on with.
            kinds = tuple(self.columns.schema())
            key = (name, self.root.version(name), columns and tuple(columns), kinds)
            yield from self._readings.take(key, positions, lambda: self.batches(name, columns))
            return
        marks = self._mark(name)
        with self.root.open(name) as file:
            for mark in np.unique(positions // _MARK_EVERY):
                inside = positions[positions // _MARK_EVERY == mark]
                if mark >= len(marks):
                    raise DatasetError(f"{name} has no row {inside[0]}: it has changed")
                file.seek(marks[mark])
                first = int(mark) * _MARK_EVERY
                rows = self._read(name, _line_rows(name, file, first), first, columns)
                yield from select_rows(rows, inside)

    def _is_lines(self, name: str) -> bool:
        """Whether a file is plain lines, of which any can be read by itself."""
        key = (name, self.root.version(name))
        if key not in self._lines:
            with self.root.open(name) as file:
                self._lines[key] = compression(file) is None and is_lines(file, name)
        return self._lines[key]

    def _head(self, name: str) -> Iterator[dict[str, Any]]:
        size = 0
        with self.root.open(name) as file, damage_named(name):
            for number, (row, length) in enumerate(_rows(name, plain(file))):
                yield row
                size += length
                if number + 1 >= HEAD_ROWS or size >= HEAD_BYTES:
                    return

    def _mark(self, name: str) -> list[int]:
        key = (name, self.root.version(name))
        if key not in self._marks:
            marks, place, row = [], 0, 0
            with self.root.open(name) as file:
                for line in file:
                    if line.strip():
                        if row % _MARK_EVERY == 0:
                            marks.append(place)
                        row += 1
                    place += len(line)
            self._marks[key] = marks
        return self._marks[key]

    def _read(
        self,
        name: str,
        found: Iterator[tuple[dict[str, Any], int]],
        position: int,
        columns: Sequence[str] | None,
    ) -> Iterator[Batch]:
        rows: list[dict[str, Any]] = []
        size = 0
        for row, length in found:
            rows.append(row)
            size += length
            if len(rows) == BATCH_ROWS or size >= BATCH_BYTES:
                yield self._batch(rows, columns, name, position)
                position, rows, size = position + len(rows), [], 0
        if rows:
            yield self._batch(rows, columns, name, position)

    def _batch(
        self, rows: list[dict[str, Any]], columns: Sequence[str] | None, name: str, start: int
    ) -> Batch:
        where = [f"{name}, row {start + i}" for i in range(len(rows))]
        batch = self.columns.batch(name, rows, columns, where)
        return np.arange(start, start + len(rows)), batch


def _rows(name: str, file: IO[bytes]) -> Iterator[tuple[dict[str, Any], int]]:
    """The rows of a file from its beginning, and about how many bytes each takes."""
    if is_lines(file, name):
        yield from _line_rows(name, file, 0)
        return
    for row in json_rows(file, name):
        told = with_answer(row)
        yield told, sum(len(value) if isinstance(value, str) else 64 for value in told.values())


def _line_rows(name: str, file: IO[bytes], first: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The rows of lines, the first of which is so far in the file."""
    faults = Faults(name) if first == 0 else None
    if first == 0:
        _check_encoding(name, file)
    for position, line in enumerate(line for line in file if line.strip()):
        row = _object(line, first + position)
        if isinstance(row, FaultyRow) and row.fault.startswith(_OF_CUT) and line[-1:] != b"\n":
            raise DatasetError(f"{name} is cut, or its last row is damaged ({row.fault})")
        if faults is not None:
            faults.count(row)
        yield with_answer(row), len(line)


def _check_encoding(name: str, file: IO[bytes]) -> None:
    if file.read(2) in UTF_16:
        raise DatasetError(f"{name}: {IS_UTF_16}")
    file.seek(0)


def _object(line: bytes, position: int) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig" if position == 0 else "utf-8")
    except UnicodeDecodeError as error:
        named = images_in_json(line.decode("utf-8", "replace"))
        return FaultyRow(named, about(NOT_UTF8, error.reason))
    row = parse(text)
    if isinstance(row, FaultyRow):
        return FaultyRow(images_in_json(text) | row, row.fault)
    return row if isinstance(row, dict) else FaultyRow({}, about(NO_OBJECT, text.strip()[:20]))
