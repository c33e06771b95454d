"""Columns that lie within others, named by a path: `caption.en` of texts by language, `sentences.raw` of a list.

A path goes through objects by the names of their fields, through maps by their keys, and through
lists to that field of every item, or by a number to one item (`turns.1.value`). A column that is
called like a path counts before it, and so does a field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.forms.base import Batch, Source, SourceFile, is_list, is_string

# The fields of a map's entries, as they are stored.
_ENTRY = ("key", "value")
_NOTHING = object()


def value_at(row: Mapping[str, Any], name: str) -> Any:
    """What a row of JSON holds at a path; None where there is nothing.

    Examples
    --------
    >>> value_at({"sentences": [{"raw": "a hat"}, {"raw": "a cap"}]}, "sentences.raw")
    ['a hat', 'a cap']
    >>> value_at({"sentences": [{"raw": "a hat"}, {"raw": "a cap"}]}, "sentences.1.raw")
    'a cap'
    """
    found = row[name] if name in row else _at(row, name.split("."))
    return None if found is _NOTHING else found


def _at(value: Any, parts: Sequence[str]) -> Any:
    """What lies at a path; `_NOTHING` where it leads nowhere."""
    if not parts:
        return value
    if isinstance(value, Mapping):
        names = ((".".join(parts[:end]), parts[end:]) for end in range(1, len(parts) + 1))
        tried = (_at(value[name], rest) for name, rest in names if name in value)
        return next((found for found in tried if found is not _NOTHING), _NOTHING)
    if not isinstance(value, list):
        return _NOTHING
    first, rest = parts[0], parts[1:]
    objects = [item for item in value if isinstance(item, Mapping)]
    if objects or not first.isdecimal():
        found = [_at(item, parts) for item in value]
        if not value or any(one is not _NOTHING for one in found):
            return [None if one is _NOTHING else one for one in found]
    entries = (item for item in objects if set(item) == set(_ENTRY))
    entry = next((entry for entry in entries if str(entry["key"]) == first), None)
    if entry is not None:
        return _at(entry["value"], rest)
    is_place = first.isdecimal() and int(first) < len(value)
    return _at(value[int(first)], rest) if is_place else _NOTHING


class Within:
    """A source of typed columns, and columns within those.

    Parameters
    ----------
    source
    names
        Paths. One that leads nowhere is no column.
    """

    def __init__(self, source: Source, names: Sequence[str]) -> None:
        self._source = source
        self._names = names

    def __getattr__(self, name: str) -> Any:
        """What else the source has."""
        return getattr(self._source, name)

    def files(self) -> list[SourceFile]:
        return self._source.files()

    def schema(self) -> pa.Schema:
        schema = self._source.schema()
        return pa.schema([*schema, *self._found(schema).values()], metadata=schema.metadata)

    def batches(self, name: str, columns: Sequence[str] | None) -> Iterator[Batch]:
        return self._read(self._source.batches(name, self._asked(columns)), columns)

    def take(
        self, name: str, positions: np.ndarray, columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        return self._read(self._source.take(name, positions, self._asked(columns)), columns)

    def _found(self, schema: pa.Schema) -> dict[str, pa.Field]:
        """The fields that paths lead to."""
        found: dict[str, pa.Field] = {}
        for name in self._names:
            base, parts = _column_of(name, schema.names)
            if name not in schema.names and base in schema.names:
                kind = _type_at(schema.field(base).type, parts)
                if kind is not None:
                    found[name] = pa.field(name, kind)
        return found

    def _asked(self, columns: Sequence[str] | None) -> list[str]:
        schema = self._source.schema()
        found, asked = self._found(schema), schema.names if columns is None else columns
        bases = (_column_of(n, schema.names)[0] if n in found else n for n in asked)
        return list(dict.fromkeys(bases))

    def _read(self, batches: Iterator[Batch], columns: Sequence[str] | None) -> Iterator[Batch]:
        schema = self._source.schema()
        found = self._found(schema)
        for positions, batch in batches:
            asked = list(columns or (*schema.names, *found))
            asked += [n for n in batch.schema.names if n not in schema.names and n not in asked]
            arrays, fields = [], []
            for name in asked:
                if name in found:
                    base, parts = _column_of(name, schema.names)
                    arrays.append(_array_at(batch[base], parts))
                    fields.append(found[name])
                else:
                    arrays.append(batch[name])
                    fields.append(batch.schema.field(name))
            yield positions, pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _column_of(path: str, columns: Sequence[str]) -> tuple[str, list[str]]:
    """The column that a path begins with, and what is left of the path."""
    parts = path.split(".")
    bases = (".".join(parts[:end]) for end in range(1, len(parts)))
    base = next((base for base in bases if base in columns), parts[0])
    return base, parts[base.count(".") + 1 :]


def _type_at(kind: pa.DataType, parts: Sequence[str]) -> pa.DataType | None:
    if not parts:
        return kind
    if is_list(kind):
        held, way = kind.value_type, _way(kind.value_type, parts)
        if way == "each":
            inner = _type_at(held, parts)
            return None if inner is None else pa.list_(inner)
        held = held.field("value").type if way == "key" else held
        return _type_at(held, parts[1:])
    name, rest = _field_of(kind, parts)
    return None if name is None else _type_at(kind.field(name).type, rest)


def _field_of(kind: pa.DataType, parts: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """The field of a struct that a path goes on to, and what is left of the path."""
    for end in range(1, len(parts) + 1) if pa.types.is_struct(kind) else ():
        name = ".".join(parts[:end])
        if kind.get_field_index(name) >= 0:
            inner = _type_at(kind.field(name).type, parts[end:])
            if inner is not None:
                return name, parts[end:]
    return None, parts


def _way(held: pa.DataType, parts: Sequence[str]) -> Literal["each", "key", "place"]:
    """How a path goes on through a list: to a field of each item, to a map's value, or to an item by its place."""
    is_number = parts[0].isdecimal()
    if is_number and not pa.types.is_struct(held):
        return "place"
    if _type_at(held, parts) is not None:
        return "each"
    if _is_entry(held):
        return "key"
    return "place" if is_number else "each"


def _is_entry(kind: pa.DataType) -> bool:
    """Whether values are entries of a map whose keys can be named."""
    if not pa.types.is_struct(kind) or tuple(field.name for field in kind) != _ENTRY:
        return False
    key = kind.field("key").type
    return is_string(key) or pa.types.is_integer(key)


def _array_at(array: pa.Array, parts: Sequence[str]) -> pa.Array:
    if not parts:
        return array
    if pa.types.is_struct(array.type):
        name, rest = _field_of(array.type, parts)
        # Its null rows are null in the field too.
        return _array_at(array.flatten()[array.type.get_field_index(name)], rest)
    items = array.flatten()
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum([0, *lengths])
    way = _way(items.type, parts)
    if way == "each":
        found = _array_at(items, parts)
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), found, mask=array.is_null())
    if way == "key":
        keys, values = items.flatten()
        named = pc.equal(keys.cast(pa.string()), parts[0])
        hits = np.flatnonzero(pc.fill_null(named, False).to_numpy(zero_copy_only=False))
        rows = np.searchsorted(ends, hits, side="right") - 1
        # Of a key that stands twice the first counts.
        (rows, first), items = np.unique(rows, return_index=True), values
        at, there = np.zeros(len(array), np.int64), np.zeros(len(array), bool)
        at[rows], there[rows] = hits[first], True
    else:
        at, there = ends[:-1] + int(parts[0]), lengths > int(parts[0])
    return _array_at(items.take(pa.array(at, mask=~there)), parts[1:])
