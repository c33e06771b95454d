"""Rows that come as Python dictionaries (JSON): their columns, inferred once, kept for all rows.

Objects and lists that are not of one simple type are passed on as JSON text, so that no key of
theirs can get lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.dataset.forms.base import DatasetError

# How much of a file is looked at to know its columns.
HEAD_ROWS = 10_000
HEAD_BYTES = 16 << 20


def infer_schema(rows: Iterable[Mapping[str, Any]]) -> pa.Schema:
    """The columns of rows and their types: strings where nothing simpler holds all values."""
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    return pa.schema([pa.field(key, _infer(values)) for key, values in columns.items()])


def to_batch(
    rows: Sequence[Mapping[str, Any]],
    schema: pa.Schema,
    columns: Sequence[str],
    where: Sequence[str],
) -> pa.RecordBatch:
    """Make a record batch of rows.

    Parameters
    ----------
    rows
        One mapping a row; a key that is not there is null.
    schema
        All columns there may be.
    columns
        Those that are wanted.
    where
        What to call each row in an error ("data.jsonl, line 7").

    Raises
    ------
    DatasetError
        If a row has a column that `schema` has not, or a value that its type cannot hold.
    """
    known = set(schema.names)
    for row, place in zip(rows, where, strict=True):
        if not row.keys() <= known:
            new = min(row.keys() - known)
            raise DatasetError(
                f"{place}: column {new!r} is not among those at the start of the data"
                f" ({', '.join(schema.names)}); name it in the first row, as null if it has none"
            )
    arrays = []
    for column in columns:
        kind = schema.field(column).type
        values = [row.get(column) for row in rows]
        try:
            arrays.append(_array(values, kind))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            arrays.append(_blame(values, kind, column, where))
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _infer(values: list[Any]) -> pa.DataType:
    if any(_nested(value) for value in values):
        return pa.string()
    try:
        kind = pa.array(values, from_pandas=False).type
    except (pa.ArrowException, ValueError, OverflowError):
        return pa.string()
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind) and pa.types.is_null(kind.value_type):
        return pa.list_(pa.string())
    return kind


def _nested(value: Any) -> bool:
    if isinstance(value, dict):
        return True
    return isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        values = [
            value if value is None or isinstance(value, str) else _json(value) for value in values
        ]
    return pa.array(values, type=kind)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _blame(values: list[Any], kind: pa.DataType, column: str, where: Sequence[str]) -> pa.Array:
    """Find the value that does not fit, and say so."""
    for value, place in zip(values, where, strict=True):
        try:
            _array([value], kind)
        except UnicodeEncodeError:
            raise DatasetError(f"{place}: column {column!r} is not UTF-8") from None
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            raise DatasetError(
                f"{place}: column {column!r} holds {_json(value)[:60]},"
                f" but {kind} at the start of the data; give the column one type"
            ) from None
    return pa.array(values, type=kind)
