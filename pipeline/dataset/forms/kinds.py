"""Kinds of JSON values that a column holds, and the Arrow type that keeps each of them as it came.

Kinds are bits, so that what two files hold together is the `|` of what each holds. A column of
kinds that no Arrow type keeps together (numbers and strings, objects, whole numbers of more than 64
bits) is JSON text throughout, strings in their quotes: nothing is made of another type in silence.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.dataset.forms.faulty import FaultyRow
from pipeline.dataset.forms.strict_json import Number, dumps, loads

NAN = 1
BOOL = 2
# A whole number that a double holds as well, one that only an int64 holds, or only a uint64.
INT = 4
LONG = 8
ULONG = 16
NEGATIVE = 32
HUGE = 64  # also a fraction that no double is
FLOAT = 128
STRING = 256
BYTES = 512
OBJECT = 1024
LIST = 2048
# The kinds of a list's items stand this many bits higher.
ITEMS = 12

# Marks the field of a column that is JSON text; its value says of what kinds.
JSON = b"rag4dmc.json"
# Marks the field of a column of which no value was seen.
EMPTY = b"rag4dmc.empty"

_OWN = (1 << ITEMS) - 1
_KINDS = {
    str: STRING,
    bool: BOOL,
    bytes: BYTES,
    dict: OBJECT,
    FaultyRow: OBJECT,
    Number: HUGE,
    type(None): 0,
}


def kind_of(value: Any) -> int:
    """The kinds of a value as `json` gives it (or of bytes): 0 for None."""
    found = _KINDS.get(type(value))
    if found is not None:
        return found
    if isinstance(value, float):
        return NAN if value != value else FLOAT
    if isinstance(value, int):
        return _kind_of_int(value)
    kinds = LIST
    for item in value:
        kind = kind_of(item)
        # A list in a list is an object as far as this goes.
        kinds |= (OBJECT if kind & LIST else kind) << ITEMS
    return kinds


def _kind_of_int(value: int) -> int:
    sign = NEGATIVE if value < 0 else 0
    if -(1 << 63) <= value < 1 << 63:
        return sign | (INT if float(value) == value else LONG)
    return ULONG if 0 <= value < 1 << 64 else HUGE


def field_of(name: str, kinds: int) -> pa.Field:
    """The column of values of some kinds; marked where it is JSON text, or empty so far."""
    kind = type_of(kinds)
    if kind is None:
        return pa.field(name, pa.string(), metadata={JSON: str(kinds)})
    return pa.field(name, kind, metadata=None if kinds & ~NAN else {EMPTY: "yes"})


def type_of(kinds: int) -> pa.DataType | None:
    """The type that keeps all values, or None where it takes JSON text.

    NaN is null among strings, truths and lists, where it can't be but a missing value, and in a
    column of nothing else.
    """
    own, items = kinds & _OWN, kinds >> ITEMS
    if own & LIST:
        inner = _simple(items) if own & ~NAN == LIST else None
        return None if inner is None else pa.list_(inner)
    return pa.string() if own == NAN else _simple(own)


def _simple(kinds: int) -> pa.DataType | None:
    known = kinds & ~NAN
    if not known:
        return pa.float64() if kinds else pa.string()
    single = {STRING: pa.string(), BOOL: pa.bool_(), BYTES: pa.binary()}.get(known)
    if single is not None:
        return single
    if not kinds & ~(INT | LONG | NEGATIVE):
        return pa.int64()
    if not kinds & ~(INT | LONG | ULONG):
        return pa.uint64()
    return None if kinds & ~(INT | NEGATIVE | FLOAT | NAN) else pa.float64()


def json_kinds(field: pa.Field) -> int | None:
    """Of what kinds the JSON text in a column is; None for a column that isn't JSON text."""
    marked = (field.metadata or {}).get(JSON)
    return None if marked is None else int(marked)


def unmarked(field: pa.Field) -> pa.Field:
    """A column with what its source says of it, and without our marks."""
    told = {k: v for k, v in (field.metadata or {}).items() if k not in (JSON, EMPTY)}
    return field.with_metadata(told) if told else field.remove_metadata()


def loose_strings(values: pa.Array) -> list[str | None]:
    """The values of a column that is JSON text: strings as they are, all else as JSON has it."""
    found = (text if text is None else loads(text) for text in values.to_pylist())
    return [v if v is None or isinstance(v, str) else dumps(v) for v in found]


def is_empty(field: pa.Field) -> bool:
    """Whether no value of a column was seen yet."""
    return EMPTY in (field.metadata or {})
