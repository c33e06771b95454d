"""JSON Lines and CSV: a row a line, images named by their paths."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from pipeline.dataset.forms.base import (
    BATCH_BYTES,
    BATCH_ROWS,
    Batch,
    DatasetError,
    SourceFile,
    check_drift,
    select_rows,
)
from pipeline.dataset.forms.compressed import compression, damage_named, plain
from pipeline.dataset.forms.delimiters import find_delimiter, text_tables
from pipeline.dataset.forms.json_rows import is_lines, json_rows, picture_tables, with_answer
from pipeline.dataset.forms.names import is_about, plain_name
from pipeline.dataset.forms.readings import Readings
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.rows import HEAD_BYTES, HEAD_ROWS, infer_schema, to_batch

JSONL_SUFFIXES = (".jsonl", ".ndjson")
CSV_SUFFIXES = (".csv", ".tsv")

# Every so many lines the place in the file is noted, for reading named rows.
_MARK_EVERY = 256

# A CSV row must fit into a block.
_BLOCK_BYTES = 8 << 20


class JsonLinesSource:
    """JSON Lines files: an object a line; or JSON files (see `json_rows`).

    Objects within are passed on as JSON text.
    """

    def __init__(self, root: Root, names: Sequence[str] | None = None) -> None:
        self.root = root
        self._names = list(names) if names is not None else None
        self._schema: pa.Schema | None = None
        self._marks: dict[tuple[str, str], list[int]] = {}
        self._lines: dict[tuple[str, str], bool] = {}
        self._readings = Readings()

    def names(self) -> list[str]:
        if self._names is not None:
            return self._names
        names = [n for n in self.root.names() if not is_about(n)]
        lines = [n for n in names if plain_name(n).endswith(JSONL_SUFFIXES)]
        if lines:
            return lines
        # Of files that are called JSON, those that name images, else all.
        return picture_tables(self.root) or [n for n in names if plain_name(n).endswith(".json")]

    def files(self) -> list[SourceFile]:
        return [SourceFile(n, self.root.url(n), self.root.version(n)) for n in self.names()]

    def schema(self) -> pa.Schema:
        if self._schema is None:
            heads = (row for name in self.names() for row in self._head(name))
            self._schema = infer_schema(heads)
        return self._schema

    def batches(self, name: str, columns: Sequence[str]) -> Iterator[Batch]:
        with self.root.open(name) as file, damage_named(name):
            yield from self._read(_rows(name, plain(file)), name, 0, columns)

    def take(self, name: str, positions: np.ndarray, columns: Sequence[str]) -> Iterator[Batch]:
        if not self._is_lines(name):
            key = (name, self.root.version(name), tuple(columns))
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
                rows = self._read(_line_rows(name, file, first), name, first, columns)
                yield from select_rows(rows, inside)

    def _is_lines(self, name: str) -> bool:
        """Whether a file is plain lines, of which any can be read by itself."""
        key = (name, self.root.version(name))
        if key not in self._lines:
            with self.root.open(name) as file:
                self._lines[key] = compression(file) is None and is_lines(file)
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
        found: Iterator[tuple[dict[str, Any], int]],
        name: str,
        position: int,
        columns: Sequence[str],
    ) -> Iterator[Batch]:
        schema = self.schema()
        rows: list[dict[str, Any]] = []
        size = 0
        for row, length in found:
            rows.append(row)
            size += length
            if len(rows) == BATCH_ROWS or size >= BATCH_BYTES:
                yield _batch(rows, schema, columns, name, position)
                position, rows, size = position + len(rows), [], 0
        if rows:
            yield _batch(rows, schema, columns, name, position)


class CsvSource:
    """CSV and TSV files with a header. All columns are strings; a field left empty is null."""

    def __init__(self, root: Root, names: Sequence[str] | None = None) -> None:
        self.root = root
        self._names = list(names) if names is not None else None
        self._schema: pa.Schema | None = None
        self._readings = Readings()

    def names(self) -> list[str]:
        if self._names is not None:
            return self._names
        names = [n for n in self.root.names() if plain_name(n).endswith(CSV_SUFFIXES)]
        return names or text_tables(self.root)

    def files(self) -> list[SourceFile]:
        return [SourceFile(n, self.root.url(n), self.root.version(n)) for n in self.names()]

    def schema(self) -> pa.Schema:
        if self._schema is None:
            header = self._header(self.names()[0])
            self._schema = pa.schema([(column, pa.string()) for column in header])
        return self._schema

    def batches(self, name: str, columns: Sequence[str]) -> Iterator[Batch]:
        header = self._header(name)
        found = pa.schema([(column, pa.string()) for column in header])
        check_drift(self.names()[0], self.schema(), name, found)
        position = 0
        with self.root.open(name) as raw, damage_named(name):
            file = plain(raw)
            try:
                read = pa_csv.open_csv(
                    file,
                    read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES),
                    parse_options=_parsing(find_delimiter(name, file)),
                    convert_options=pa_csv.ConvertOptions(
                        column_types=found,
                        include_columns=list(columns) or None,
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                        null_values=[""],
                    ),
                )
                for block in read:
                    for start in range(0, block.num_rows, BATCH_ROWS):
                        part = block.slice(start, BATCH_ROWS)
                        numbers = np.arange(position, position + part.num_rows)
                        yield numbers, part.select(list(columns))
                        position += part.num_rows
            except (pa.ArrowInvalid, UnicodeDecodeError) as error:
                raise _bad_csv(name, position, error) from None

    def take(self, name: str, positions: np.ndarray, columns: Sequence[str]) -> Iterator[Batch]:
        # A line break may stand within quotes, so rows can only be counted from the start.
        key = (name, self.root.version(name), tuple(columns))
        yield from self._readings.take(key, positions, lambda: self.batches(name, columns))

    def _header(self, name: str) -> list[str]:
        import csv
        import io

        with self.root.open(name) as raw, damage_named(name):
            try:
                file = plain(raw)
                mark = find_delimiter(name, file)
                text = io.TextIOWrapper(file, "utf-8-sig", newline="")
                header = [column.strip() for column in next(csv.reader(text, delimiter=mark), [])]
            except (UnicodeDecodeError, csv.Error) as error:
                raise _bad_csv(name, 0, error) from None
        if not header:
            raise DatasetError(f"{name} has no header line")
        twice = {column for column in header if header.count(column) > 1}
        if twice:
            raise DatasetError(f"{name}: column {min(twice)!r} stands twice in the header")
        return header


def _rows(name: str, file: IO[bytes]) -> Iterator[tuple[dict[str, Any], int]]:
    """The rows of a file from its beginning, and about how many bytes each takes."""
    if is_lines(file):
        yield from _line_rows(name, file, 0)
        return
    for row in json_rows(file, name):
        yield (
            with_answer(row),
            sum(len(value) if isinstance(value, str) else 64 for value in row.values()),
        )


def _line_rows(name: str, file: IO[bytes], first: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The rows of lines, the first of which is so far in the file."""
    for position, line in enumerate(line for line in file if line.strip()):
        yield with_answer(_object(line, name, first + position)), len(line)


def _object(line: bytes, name: str, position: int) -> dict[str, Any]:
    place = f"{name}, row {position}"
    try:
        row = json.loads(line.decode("utf-8-sig" if position == 0 else "utf-8"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{place}: the text is not UTF-8 ({error.reason})") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{place}: the line is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise DatasetError(f"{place}: the line is not an object with columns; write one a line")
    return row


def _batch(
    rows: list[dict[str, Any]],
    schema: pa.Schema,
    columns: Sequence[str],
    name: str,
    start: int,
) -> Batch:
    where = [f"{name}, row {start + i}" for i in range(len(rows))]
    return np.arange(start, start + len(rows)), to_batch(rows, schema, columns, where)


def _parsing(delimiter: str) -> pa_csv.ParseOptions:
    return pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)


def _bad_csv(name: str, position: int, error: Exception) -> DatasetError:
    said = str(error).splitlines()[0][:160]
    if isinstance(error, UnicodeDecodeError) or "utf8" in said.lower() or "utf-8" in said.lower():
        return DatasetError(f"{name}, after row {position}: the text is not UTF-8")
    return DatasetError(f"{name}, after row {position}: {said}")
