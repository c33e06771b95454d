"""Arrow values as JSON has them: what it knows as it is, the rest in a writing that loses nothing.

Dates and times are ISO 8601, also those that Python's own types don't hold; decimals are strings and
bytes Base64; NaN and the infinities, which JSON does not know, are null.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.forms.base import is_binary, is_list

_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def json_values(array: pa.Array) -> list[Any]:
    """The values of an array of any type, for `json.dumps`."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return json_values(array.storage)
    if pa.types.is_dictionary(kind):
        return json_values(array.dictionary_decode())
    if pa.types.is_floating(kind):
        # Half precision has no list of Python's numbers.
        wide = array.cast(pa.float32()) if pa.types.is_float16(kind) else array
        return [v if v is None or math.isfinite(v) else None for v in wide.to_pylist()]
    if pa.types.is_decimal(kind):
        return list(array.cast(pa.string()).to_pylist())
    if is_binary(kind):
        return [None if v is None else base64.b64encode(v).decode() for v in array.to_pylist()]
    if pa.types.is_temporal(kind):
        return _times(array)
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        parts = [json_values(part) for part in array.flatten()]
        rows = zip(*parts, strict=True) if parts else [()] * len(array)
        found: list[Any] = [dict(zip(names, row, strict=True)) for row in rows]
    elif is_list(kind):
        items = json_values(array.flatten())
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_pylist()
        ends = np.cumsum(lengths, dtype=np.int64).tolist()
        found = [items[end - n : end] for end, n in zip(ends, lengths, strict=True)]
    else:
        return list(array.to_pylist())
    there = array.is_valid().to_pylist()
    return [value if valid else None for value, valid in zip(found, there, strict=True)]


def _times(array: pa.Array) -> list[Any]:
    kind = array.type
    unit = "D" if pa.types.is_date32(kind) else "ms" if pa.types.is_date64(kind) else kind.unit
    numbers = array.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    there = array.is_valid().to_pylist()
    values = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    if pa.types.is_duration(kind):
        return [
            _seconds(v, _A_SECOND[unit]) if t else None
            for v, t in zip(values.tolist(), there, strict=True)
        ]
    ends = [""] * len(array)
    if pa.types.is_timestamp(kind) and kind.tz:
        local = _local(array, values)
        ends = [_offset(o // _A_SECOND[unit]) for o in (local - values).tolist()]
        values = local
    texts = np.datetime_as_string(values.view(f"datetime64[{unit}]")).tolist()
    if pa.types.is_date64(kind):
        texts = [text.partition("T")[0] for text in texts]
    elif pa.types.is_time(kind):
        texts = [text.partition("T")[2] for text in texts]
    return [
        _short(text) + end if valid else None
        for text, end, valid in zip(texts, ends, there, strict=True)
    ]


def _local(array: pa.Array, values: np.ndarray) -> np.ndarray:
    """What the clocks of a column's time zone show, in its units.

    That of UTC where the zone has no name that is known here, or the numbers have no room for it.
    """
    try:
        local = pc.fill_null(pc.local_timestamp(array).cast(pa.int64()), 0)
    except pa.ArrowInvalid:
        return values
    shown = local.to_numpy(zero_copy_only=False).astype(np.int64)
    return values if ((shown < 0) != (values < 0))[np.abs(values) > 2**62].any() else shown


def _short(text: str) -> str:
    """Without the zeros that end a fraction."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _offset(seconds: int) -> str:
    sign, rest = "-" if seconds < 0 else "+", abs(seconds)
    hours, minutes = divmod(rest // 60, 60)
    return f"{sign}{hours:02d}:{minutes:02d}"


def _seconds(value: int, a_second: int) -> float | str:
    """A number of seconds, as a string where a double can't hold it."""
    seconds = value / a_second
    if round(seconds * a_second) == value:
        return seconds
    whole, rest = divmod(abs(value), a_second)
    digits = len(str(a_second)) - 1
    return f"{'-' if value < 0 else ''}{whole}.{rest:0{digits}d}"
