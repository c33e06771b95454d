"""Columns that lie within others, named by a path: `caption.en` of texts by language, `sentences.raw` of a list.

A path goes through objects by the names of their fields, and through lists to that field of every
item. A column that is called like a path counts before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.forms.base import Batch, Source, SourceFile, is_list


def value_at(row: Mapping[str, Any], name: str) -> Any:
    """What a row of JSON holds at a path; None where there is nothing.

    Examples
    --------
    >>> value_at({"sentences": [{"raw": "a hat"}, {"raw": "a cap"}]}, "sentences.raw")
    ['a hat', 'a cap']
    """
    return row[name] if name in row else _at(row, name.split("."))


def _at(value: Any, parts: Sequence[str]) -> Any:
    if not parts:
        return value
    if isinstance(value, list):
        return [_at(item, parts) for item in value]
    return _at(value.get(parts[0]), parts[1:]) if isinstance(value, Mapping) else None


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
            base, *parts = name.split(".")
            if name not in schema.names and base in schema.names:
                kind = _type_at(schema.field(base).type, parts)
                if kind is not None:
                    found[name] = pa.field(name, kind)
        return found

    def _asked(self, columns: Sequence[str] | None) -> list[str]:
        schema = self._source.schema()
        found, asked = self._found(schema), schema.names if columns is None else columns
        return list(dict.fromkeys(n.split(".")[0] if n in found else n for n in asked))

    def _read(self, batches: Iterator[Batch], columns: Sequence[str] | None) -> Iterator[Batch]:
        schema = self._source.schema()
        found = self._found(schema)
        for positions, batch in batches:
            asked = list(columns or (*schema.names, *found))
            asked += [n for n in batch.schema.names if n not in schema.names and n not in asked]
            arrays, fields = [], []
            for name in asked:
                if name in found:
                    base, *parts = name.split(".")
                    arrays.append(_array_at(batch[base], parts))
                    fields.append(found[name])
                else:
                    arrays.append(batch[name])
                    fields.append(batch.schema.field(name))
            yield positions, pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _type_at(kind: pa.DataType, parts: Sequence[str]) -> pa.DataType | None:
    if not parts:
        return kind
    if is_list(kind):
        inner = _type_at(kind.value_type, parts)
        return None if inner is None else pa.list_(inner)
    if not pa.types.is_struct(kind) or kind.get_field_index(parts[0]) < 0:
        return None
    return _type_at(kind.field(parts[0]).type, parts[1:])


def _array_at(array: pa.Array, parts: Sequence[str]) -> pa.Array:
    if not parts:
        return array
    if pa.types.is_struct(array.type):
        # Its null rows are null in the field too.
        return _array_at(array.flatten()[array.type.get_field_index(parts[0])], parts[1:])
    items = _array_at(array.flatten(), parts)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    ends = pa.array(np.cumsum([0, *lengths]), pa.int32())
    return pa.ListArray.from_arrays(ends, items, mask=array.is_null())
