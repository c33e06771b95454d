"""What every form of dataset answers: its files, their rows in order, and named rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from pipeline.dataset.forms.file_metadata import portable

# What a source yields at a time: few enough rows and bytes to hold many batches in memory.
BATCH_ROWS = 256
BATCH_BYTES = 64 << 20

_FIRST = 3

# Digits of a decimal, and of one of 128 bits.
_MOST_DIGITS = 76
_MOST_OF_128 = 38
_PLAIN = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary(), pa.binary(0): pa.binary()}

# An image of more bytes is not read.
MAX_IMAGE_BYTES = 1 << 28

# An image of a row as sources hand it on. `reason` says why it is missing, where the source knows.
IMAGE_CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("reason", pa.string())])


class DatasetError(ValueError):
    """A dataset that cannot be used as it is: one line that says what to change."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a dataset: the unit of reading.

    Attributes
    ----------
    name
        Relative to the dataset's folder.
    url
        Where it is.
    version
        Changes when the file, or what its rows point to, may have changed: of size and
        modification time, or the ETag.
    """

    name: str
    url: str
    version: str


@dataclass(slots=True)
class Left:
    """Things of one kind that lie in a file and are not read: how many, and the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str, count: int = 1) -> None:
        self.count += count
        if len(self.first) < _FIRST:
            self.first.append(name)


Positions = np.ndarray
Batch = tuple[Positions, pa.RecordBatch]


class Source(Protocol):
    """One form of dataset.

    Besides what is here, a source may have `names` (its tables, where `files` would take long),
    `used` (the names of all files that it reads, beside images that rows name by their paths),
    `keep_in` (given a folder for what spares it a reading), `halves` (the columns "image" and "text"
    where the form has such), `left` (of a file that was read: what lies in it and is not used, `Left`
    by kind), `pictures` (what finds images by their paths, where it needs that itself) and `advice` (lines
    on what to change about the files).
    """

    def files(self) -> list[SourceFile]:
        """The files in order of their names."""

    def schema(self) -> pa.Schema:
        """The columns, as the beginning of the first file has them; reads no more than that.

        A source of JSON has more of them, and of wider types, the more it has read. It has them in
        an attribute `columns` (`pipeline.dataset.forms.rows.Columns`).
        """

    def batches(self, name: str, columns: Sequence[str] | None) -> Iterator[Batch]:
        """The rows of a file in order: their positions (int64) and the columns asked for.

        `columns` None, which only a source of JSON is asked for, stands for all that it has seen
        by then.

        Raises
        ------
        DatasetError
            If the file is damaged or its columns are not those of `schema`.
        """

    def take(
        self, name: str, positions: np.ndarray, columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        """The same for some rows only, `positions` being sorted; reads as little as it can."""


def select_rows(batches: Iterable[Batch], positions: np.ndarray) -> Iterator[Batch]:
    """Keep the rows at sorted `positions` of batches that run in order, and stop after the last."""
    if len(positions) == 0:
        return
    for found, batch in batches:
        wanted = np.flatnonzero(np.isin(found, positions, assume_unique=True))
        if len(wanted):
            yield found[wanted], batch.take(pa.array(wanted))
        if len(found) and found[-1] >= positions[-1]:
            return


def filled_batch(
    schema: pa.Schema, columns: Sequence[str], arrays: Mapping[str, pa.Array], rows: int
) -> pa.RecordBatch:
    """The columns asked for, null where there is no array of one."""
    fields = [
        schema.field(name) if name in schema.names else pa.field(name, pa.string())
        for name in columns
    ]
    held = [arrays[f.name] if f.name in arrays else pa.nulls(rows, f.type) for f in fields]
    return pa.RecordBatch.from_arrays(held, schema=pa.schema(fields))


def plain(schema: pa.Schema) -> pa.Schema:
    """The columns with the types that hold the same values where ours or `datasets` can't be used.

    A map becomes a list of its keys and values, which is what Parquet stores of it; a narrow decimal
    one of 128 bits, a view of strings or bytes strings or bytes, an extension type its storage. What
    Parquet writes and does not give back becomes what it does: categories of other than strings and
    bytes their values, bytes and lists of a fixed size of none those of any, a decimal of a scale below
    zero or beyond its digits one of more digits. All others stay. Keys of categories are widened, lest
    those of all files together be too many. Of the file's metadata there is what holds for others too.

    Raises
    ------
    DatasetError
        A column is of a type that Parquet does not keep.
    """
    for column in schema:
        if not _is_kept(column.type):
            raise DatasetError(
                f"column {column.name!r} is {column.type}, which Parquet can't keep;"
                " write it as another type"
            )
    fields = [of_type(column, _plain_type(column.type)) for column in schema]
    return pa.schema(fields, metadata=portable(schema.metadata))


def _is_kept(kind: pa.DataType) -> bool:
    """Whether Parquet keeps values of a type, and Arrow gives them on unharmed: views of lists it does not."""
    if isinstance(kind, pa.BaseExtensionType):
        return _is_kept(kind.storage_type)
    if pa.types.is_run_end_encoded(kind) or pa.types.is_union(kind) or pa.types.is_interval(kind):
        return False
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return False
    if pa.types.is_decimal(kind):
        return _digits(kind)[0] <= _MOST_DIGITS
    if pa.types.is_dictionary(kind):
        return _is_kept(kind.value_type)
    held = [kind.field(i) for i in range(kind.num_fields)]
    return (bool(held) or not pa.types.is_struct(kind)) and all(_is_kept(f.type) for f in held)


def of_type(field: pa.Field, kind: pa.DataType) -> pa.Field:
    """A field in another type, without the mark of an extension that is stored in its own."""
    stored = field.type
    stored = stored.storage_type if isinstance(stored, pa.BaseExtensionType) else stored
    if kind == stored or not field.metadata:
        return field.with_type(kind)
    told = {k: v for k, v in field.metadata.items() if not k.startswith(b"ARROW:extension:")}
    return field.with_type(kind).with_metadata(told)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    if pa.types.is_map(kind):
        pair = [("key", _plain_type(kind.key_type)), ("value", _plain_type(kind.item_type))]
        return pa.list_(pa.struct(pair))
    if pa.types.is_decimal(kind):
        digits, scale = _digits(kind)
        wide = digits > _MOST_OF_128 or kind.bit_width > 128
        return (pa.decimal256 if wide else pa.decimal128)(digits, scale)
    if pa.types.is_dictionary(kind):
        values = _plain_type(kind.value_type)
        kept = is_string(values) or values in (pa.binary(), pa.large_binary())
        return pa.dictionary(pa.int32(), values, kind.ordered) if kept else values
    return _PLAIN.get(kind) or within(kind, _plain_type)


def within(kind: pa.DataType, inner: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """A struct or list with other types in it; any other type as it is.

    They may be null, for that is what stands in them where there is no struct.
    """

    def changed(field: pa.Field) -> pa.Field:
        return of_type(field, inner(field.type)).with_nullable(True)

    if pa.types.is_struct(kind):
        return pa.struct([changed(field) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        # Parquet gives no lists of a fixed size of none back.
        return pa.list_(changed(kind.value_field), kind.list_size or -1)
    if pa.types.is_large_list(kind):
        return pa.large_list(changed(kind.value_field))
    return pa.list_(changed(kind.value_field)) if pa.types.is_list(kind) else kind


def stored(kind: pa.DataType) -> pa.DataType:
    """The type in which Parquet holds the values of another: it has no seconds, nor days of 64 bits."""
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    return pa.date32() if pa.types.is_date64(kind) else within(kind, stored)


def untimed(kind: pa.DataType) -> pa.DataType:
    """The same with numbers for times and dates, not all of which Python has."""
    if pa.types.is_temporal(kind):
        return pa.int32() if kind.bit_width == 32 else pa.int64()
    return within(kind, untimed)


def _digits(kind: pa.DataType) -> tuple[int, int]:
    """How many digits and how many of them after the point hold a decimal's values as Parquet has them."""
    before = kind.precision - min(kind.scale, 0)
    return max(before, kind.scale), max(kind.scale, 0)


def is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()


def is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or kind == pa.binary_view()
    )
