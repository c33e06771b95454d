"""CSV tables: a record a row, images named by their paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipeline.dataset.forms.base import BATCH_BYTES, BATCH_ROWS, Batch, DatasetError, SourceFile
from pipeline.dataset.forms.compressed import damage_named, plain
from pipeline.dataset.forms.csv_records import Dialect, Quotes, Record, find_dialect
from pipeline.dataset.forms.delimiters import find_delimiter, text_tables
from pipeline.dataset.forms.faulty import FAULT, FaultyRow
from pipeline.dataset.forms.names import is_image, plain_name
from pipeline.dataset.forms.readings import Readings
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.widening import check_drift

CSV_SUFFIXES = (".csv", ".tsv")


class CsvSource:
    """CSV and TSV files with a header. All columns are strings; a field left empty is null.

    A column without a name has its place for one ("unnamed_4"). `quotes` says how a quote stands within
    quotes: doubled, after a backslash, or either ("auto"); or that quotes are part of the texts ("none").
    """

    def __init__(
        self, root: Root, names: Sequence[str] | None = None, quotes: Quotes = "auto"
    ) -> None:
        self.root = root
        self._quotes: Quotes = quotes
        self._dialects: dict[tuple[str, str], Dialect] = {}
        self._names = list(names) if names is not None else None
        self._schema: pa.Schema | None = None
        self._readings = Readings()

    def names(self) -> list[str]:
        if self._names is not None:
            return self._names
        names = [n for n in self.root.names() if plain_name(n).endswith(CSV_SUFFIXES)]
        return self.root.filled(names) if names else text_tables(self.root)

    def files(self) -> list[SourceFile]:
        return [SourceFile(n, self.root.url(n), self.root.version(n)) for n in self.names()]

    def schema(self) -> pa.Schema:
        if self._schema is None:
            header = self._header(self.names()[0])
            self._schema = pa.schema([(column, pa.string()) for column in header])
        return self._schema

    def batches(self, name: str, columns: Sequence[str] | None) -> Iterator[Batch]:
        columns = self.schema().names if columns is None else columns
        with self.root.open(name) as file, damage_named(name):
            records = self._dialect(name).records(name, plain(file))
            header = _header(name, next(records, []))
            found = pa.schema([(column, pa.string()) for column in header])
            check_drift(self.names()[0], self.schema(), name, found)
            at = [header.index(column) for column in columns]
            position, size = 0, 0
            held: list[Record] = []
            for record in records:
                held.append(record)
                size += sum(len(field) for field in record if field)
                if len(held) == BATCH_ROWS or size >= BATCH_BYTES:
                    yield _columns(held, at, columns, position)
                    position, size, held = position + len(held), 0, []
            if held:
                yield _columns(held, at, columns, position)

    def take(
        self, name: str, positions: np.ndarray, columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        columns = self.schema().names if columns is None else columns
        # A line break may stand within quotes, so rows can only be counted from the start.
        key = (name, self.root.version(name), tuple(columns))
        yield from self._readings.take(key, positions, lambda: self.batches(name, columns))

    def _header(self, name: str) -> list[str]:
        with self.root.open(name) as file, damage_named(name):
            return _header(name, next(self._dialect(name).records(name, plain(file)), []))

    def _dialect(self, name: str) -> Dialect:
        key = (name, self.root.version(name))
        if key not in self._dialects:
            with self.root.open(name) as file, damage_named(name):
                content = plain(file)
                delimiter = find_delimiter(name, content)
                found = find_dialect(name, content, delimiter, self._quotes)
            self._dialects[key] = found
        return self._dialects[key]


def _header(name: str, record: Record) -> list[str]:
    header = [(field or "").strip() for field in record]
    if not header:
        raise DatasetError(f"{name} has no header line; write one with the names of the columns")
    # Such as an index that pandas wrote, or what spreadsheets fill up lines with.
    header = [field or _unnamed(place, header) for place, field in enumerate(header)]
    data = next((field for field in header if is_image(field) or "://" in field), None)
    if data is not None:
        raise DatasetError(
            f"{name} has no header line: its first line holds {data[:60]!r}; write one with the names"
            " of the columns"
        )
    twice = {column for column in header if header.count(column) > 1}
    if twice:
        raise DatasetError(f"{name}: column {min(twice)!r} stands twice in the header")
    return header


def _unnamed(place: int, header: list[str]) -> str:
    """What a column without a name is called: for its place, and as no other is."""
    name = f"unnamed_{place + 1}"
    while name in header:
        name += "_"
    return name


def _columns(records: list[Record], at: list[int], columns: Sequence[str], position: int) -> Batch:
    arrays = [
        pa.array([r.get(c) if isinstance(r, FaultyRow) else r[i] for r in records], pa.string())
        for i, c in zip(at, columns, strict=True)
    ]
    faults = [r.fault if isinstance(r, FaultyRow) else None for r in records]
    names = [*columns, *[FAULT] * any(faults)]
    arrays += [pa.array(faults, pa.string())] * any(faults)
    batch = pa.RecordBatch.from_arrays(arrays, names=names)
    return np.arange(position, position + len(records)), batch
