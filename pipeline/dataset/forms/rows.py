"""Rows that come as Python dictionaries (JSON): their columns, which grow and widen as files are read.

A key that comes late is null in the rows before; a value that its column's type can't keep makes
another type of the column (see `pipeline.dataset.forms.kinds`), and none of its values another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.dataset.forms.base import DatasetError
from pipeline.dataset.forms.faulty import FAULT, FaultyRow
from pipeline.dataset.forms.kinds import BYTES, field_of, kind_of, type_of
from pipeline.dataset.forms.reasons import NOT_UTF8, about
from pipeline.dataset.forms.strict_json import dumps
from pipeline.dataset.forms.within import value_at

# How much of a file is looked at to know its columns before anything is read.
HEAD_ROWS = 10_000
HEAD_BYTES = 16 << 20

Row = Mapping[str, Any]


class Columns:
    """The columns of a source's rows, as far as they were seen, and the kinds of their values.

    Parameters
    ----------
    always
        Columns there are in any case; they are of the type given, whatever they hold.

    Attributes
    ----------
    within
        Columns that lie within others, by their paths (`pipeline.dataset.forms.within`).
    """

    def __init__(self, always: Sequence[pa.Field] = ()) -> None:
        self.within: Sequence[str] = ()
        self._always = {field.name: field for field in always}
        self._seen: dict[str, dict[str, int]] = {}
        self._together: dict[str, int] = {}
        self._schema: pa.Schema | None = None

    def see(self, file: str, rows: Iterable[Row]) -> bool:
        """Take in the keys and kinds of rows of a file; whether all keys are UTF-8, as they have to be."""
        own = self._seen.setdefault(file, {})
        changed, clean = False, True
        for row in map(self._with_paths, rows) if self.within else rows:
            for key, value in row.items():
                if key in self._always:
                    continue
                known, kind = own.get(key), kind_of(value)
                if known is None and not _is_utf8(key):
                    clean = False
                elif known is None or known | kind != known:
                    own[key] = (known or 0) | kind
                    changed = True
        if changed:
            self._take_in(own)
        return clean

    def of(self, file: str) -> dict[str, int]:
        """The kinds by key that were seen in a file."""
        return dict(self._seen.get(file, {}))

    @property
    def always(self) -> frozenset[str]:
        """The columns that every file has, whatever is in it."""
        return frozenset(self._always)

    def files(self) -> list[str]:
        """The files of which anything was seen."""
        return [name for name, seen in self._seen.items() if name and seen]

    def learn(self, file: str, kinds: Mapping[str, int]) -> None:
        """Take in what was seen in a file another time; "" stands for all files together.

        What is learned of "" holds until something else is.
        """
        before = self._seen.get(file, {})
        self._seen[file] = dict(kinds)
        if all(before[key] & ~kinds.get(key, 0) == 0 for key in before):
            self._take_in(kinds)
            return
        self._together, self._schema = {}, None
        for seen in self._seen.values():
            self._take_in(seen)

    def together(self) -> dict[str, int]:
        """The kinds by key of all files."""
        return dict(self._together)

    def schema(self) -> pa.Schema:
        """All columns that were seen, in the order of their first coming."""
        if self._schema is None:
            fields = [field_of(key, kinds) for key, kinds in self._together.items()]
            self._schema = pa.schema([*self._always.values(), *fields])
        return self._schema

    def batch(
        self,
        file: str,
        rows: Sequence[Row],
        columns: Sequence[str] | None,
        where: Sequence[str],
    ) -> pa.RecordBatch:
        """Make a record batch of rows, taking in what is new in them.

        Where rows can't be read, there is a column `FAULT`; of their values those are null that can't.

        Parameters
        ----------
        file
            Where they are from.
        rows
            One mapping a row; a key that is not there is null.
        columns
            Those that are wanted; None for all.
        where
            What to call each row in an error ("data.jsonl, line 7").

        Raises
        ------
        DatasetError
            A column holds bytes and other values.
        """
        rows = list(map(self._with_paths, rows)) if self.within else rows
        if not self.see(file, rows):
            rows = list(map(_cleaned, rows))
        try:
            return self._batch(rows, columns, where)
        except UnicodeEncodeError:
            return self._batch(list(map(_cleaned, rows)), columns, where)

    def _batch(
        self, rows: Sequence[Row], columns: Sequence[str] | None, where: Sequence[str]
    ) -> pa.RecordBatch:
        schema = self.schema()
        if columns is None:
            columns = schema.names
        arrays, fields = [], []
        for column in columns:
            at = schema.get_field_index(column)
            field = schema.field(at) if at >= 0 else field_of(column, 0)
            values = [row.get(column) for row in rows]
            if column in self._always:
                arrays.append(pa.array(values, field.type))
            else:
                arrays.append(_array(values, self._together.get(column, 0), column, where))
            fields.append(field)
        faults = [row.fault if isinstance(row, FaultyRow) else None for row in rows]
        if any(faults):
            arrays.append(pa.array(faults, pa.string()))
            fields.append(pa.field(FAULT, pa.string()))
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _with_paths(self, row: Row) -> Row:
        found = {name: value_at(row, name) for name in self.within if name not in row}
        found = {name: value for name, value in found.items() if value is not None}
        if not found:
            return row
        return FaultyRow(row | found, row.fault) if isinstance(row, FaultyRow) else {**row, **found}

    def _take_in(self, kinds: Mapping[str, int]) -> None:
        for key, kind in kinds.items():
            known = self._together.get(key)
            if known is None or known | kind != known:
                self._together[key] = (known or 0) | kind
                self._schema = None


def with_empty(schema: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """A schema, with columns of those names that no row has had so far."""
    missing = [field_of(name, 0) for name in names if name not in schema.names]
    return pa.schema([*schema, *missing])


def _is_utf8(value: Any) -> bool:
    try:
        (value if isinstance(value, str) else dumps(value)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _cleaned(row: Row) -> Row:
    """A row less what of it is no UTF-8: halves of surrogate pairs, as JSON can have them escaped."""
    bad = [k for k, v in row.items() if not _is_utf8(k) or (_is_json(v) and not _is_utf8(v))]
    if not bad:
        return row
    shown = bad[0].encode("utf-8", "backslashreplace").decode()
    return FaultyRow({k: v for k, v in row.items() if k not in bad}, about(NOT_UTF8, shown))


def _is_json(value: Any) -> bool:
    """Whether a value is not of bytes, which need not be text."""
    held = value.values() if isinstance(value, dict) else [value]
    return not any(isinstance(one, bytes) for one in held)


def _array(values: list[Any], kinds: int, column: str, where: Sequence[str]) -> pa.Array:
    kind = type_of(kinds)
    if kind is None:
        return _json_array(values, kinds, column, where)
    if pa.types.is_list(kind):
        if not pa.types.is_floating(kind.value_type):
            values = [v if v is None or _nan(v) else _without_nan(v) for v in values]
        values = [None if _nan(value) else value for value in values]
    elif not pa.types.is_floating(kind):
        values = _without_nan(values)
    return pa.array(values, kind)


def _json_array(values: list[Any], kinds: int, column: str, where: Sequence[str]) -> pa.Array:
    if kinds & BYTES:
        raise DatasetError(
            f"{where[0]}: column {column!r} is a file of a sample here and a key of JSON there;"
            " rename one"
        )
    texts = [None if v is None else dumps(v) for v in values]
    return pa.array(texts, pa.string())


def _without_nan(values: list[Any]) -> list[Any]:
    return [None if _nan(value) else value for value in values]


def _nan(value: Any) -> bool:
    return isinstance(value, float) and value != value
