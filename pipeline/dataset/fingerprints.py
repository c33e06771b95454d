"""Digests of rows of any Arrow type, from the values as Arrow has them.

No value becomes one of Python, which has no dates past the year 9999, no nanoseconds and no numbers
of 32 bits: it would end the run or compare as what it is not.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.forms.base import is_list

_NULL = b"\0"


def row_digests(rows: pa.StructArray) -> list[str]:
    """A 128-bit digest in hex of each row: of the names and values of what is not null in it."""
    names = [f"{field.name}\0".encode() for field in rows.type]
    columns = [_encoded(column) for column in rows.flatten()]
    found = []
    for row in range(len(rows)):
        state = hashlib.blake2b(digest_size=16)
        for name, column in zip(names, columns, strict=True):
            if column[row] != _NULL:
                state.update(name + column[row])
        found.append(state.hexdigest())
    return found


def _encoded(array: pa.Array) -> list[bytes]:
    """Each value as bytes that tell it from every other of its type and say their own length."""
    kind = array.type
    if pa.types.is_null(kind):
        return [_NULL] * len(array)
    if isinstance(kind, pa.BaseExtensionType):
        return _encoded(array.storage)
    if pa.types.is_dictionary(kind):
        return _encoded(array.dictionary_decode())
    if pa.types.is_struct(kind):
        columns = [_encoded(column) for column in array.flatten()]
        values = [b"".join(row) for row in zip(*columns, strict=True)] or [b""] * len(array)
    elif is_list(kind):
        values = _lists(array)
    elif pa.types.is_boolean(kind):
        values = _fixed(array.cast(pa.uint8()), 1)
    elif pa.types.is_primitive(kind) or pa.types.is_decimal(kind):
        values = _fixed(array, kind.bit_width // 8)
    else:
        values = [value or b"" for value in array.cast(pa.large_binary()).to_pylist()]
    there = array.is_valid().to_pylist()
    return [
        b"\1" + len(value).to_bytes(8, "little") + value if valid else _NULL
        for value, valid in zip(values, there, strict=True)
    ]


def _fixed(array: pa.Array, width: int) -> list[bytes]:
    buffer = array.buffers()[1]
    if buffer is None:
        return [b""] * len(array)
    data = memoryview(buffer)
    starts = range(array.offset * width, (array.offset + len(array)) * width, width)
    return [bytes(data[start : start + width]) for start in starts]


def _lists(array: pa.Array) -> list[bytes]:
    items = _encoded(array.flatten())
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths).tolist()
    return [
        b"".join(items[end - length : end])
        for end, length in zip(ends, lengths.tolist(), strict=True)
    ]
