"""Rows of any type have digests that tell them apart and stay, without a value of Python's."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from pipeline.dataset.fingerprints import row_digests

FAR = 253_402_300_800 + 86_400  # seconds to a day in the year 10000

VALUES: dict[str, tuple[pa.DataType, list]] = {
    "far dates": (pa.timestamp("s"), [FAR, FAR + 1, -FAR * 9, None]),
    "zones": (pa.timestamp("ns", "Europe/Berlin"), [1, 2, None]),
    "days": (pa.date32(), [2**31 - 1, -(2**31), 0, None]),
    "times": (pa.time64("ns"), [1, 2, None]),
    "durations": (pa.duration("ns"), [2**62, 2**62 + 1, None]),
    "whole numbers": (pa.int64(), [2**53, 2**53 + 1, None]),
    "fractions": (pa.float64(), [0.1, 0.1000000000000001, float("nan"), None]),
    "half": (pa.float16(), [0.5, 0.25, None]),
    "truths": (pa.bool_(), [True, False, None]),
    "decimals": (pa.decimal256(70, 2), [Decimal("1e60"), Decimal("1.01"), None]),
    "strings": (pa.large_string(), ["", "a", "a\0", None]),
    "views": (pa.string_view(), ["", "a", "a long one that is not inline", None]),
    "bytes": (pa.binary(), [b"", b"\0", b"\0\0", None]),
    "fixed bytes": (pa.binary(2), [b"\0\0", b"ab", None]),
    "lists": (pa.list_(pa.string()), [["a", "b"], ["ab"], ["a", None], [], None]),
    "large lists": (pa.large_list(pa.int8()), [[1], [1, 1], [], None]),
    "fixed lists": (pa.list_(pa.int8(), 2), [[1, 2], [2, 1], None]),
    "structs": (
        pa.struct([("a", pa.timestamp("ms")), ("b", pa.string())]),
        [{"a": FAR * 1000, "b": "x"}, {"a": FAR * 1000, "b": "y"}, {"a": None, "b": "x"}, None],
    ),
    "categories": (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None]),
}


@pytest.mark.parametrize("kind", VALUES)
def test_every_value_has_a_digest_of_its_own_wherever_it_lies(kind: str) -> None:
    of, values = VALUES[kind]
    column = pa.array([*values, *values], of)
    rows = pa.StructArray.from_arrays([column], names=["a"])
    digests = row_digests(rows)
    count = len(values)
    assert len(set(digests)) == count
    assert digests[:count] == digests[count:]
    assert row_digests(rows.slice(1, count)) == digests[1 : count + 1]


def test_a_null_column_more_changes_no_digest_and_a_name_does() -> None:
    one = pa.StructArray.from_arrays([pa.array([1, 2])], names=["a"])
    two = pa.StructArray.from_arrays([pa.array([1, 2]), pa.nulls(2, pa.string())], names=["a", "b"])
    other = pa.StructArray.from_arrays([pa.array([1, 2])], names=["c"])
    assert row_digests(one) == row_digests(two)
    assert set(row_digests(one)).isdisjoint(row_digests(other))
