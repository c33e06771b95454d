"""JSON read so that nothing is lost: no number is rounded, and no value dropped without a word."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

from pipeline.dataset.forms.faulty import FaultyRow
from pipeline.dataset.forms.reasons import NOT_JSON, TWICE, about

# Any number of as many digits is a double's own.
_SURE = 15


class Lossy(ValueError):
    """JSON that can't be read without a loss."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number that no double is, as it is written: out of its range, or of more digits."""

    text: str


def parse(text: str) -> Any:
    """The value of a JSON text; a `FaultyRow` where it is none, or a key stands twice in an object."""
    try:
        return DECODER.decode(text)
    except Lossy as error:
        found = _LENIENT.decode(text)
        return FaultyRow(found if isinstance(found, dict) else {}, str(error))
    except (ValueError, RecursionError) as error:
        return FaultyRow({}, about(NOT_JSON, str(error)))


def decode_at(text: str, place: int) -> tuple[Any, int]:
    """The value that begins at a place of a text, and where it ends.

    Raises
    ------
    Lossy
        It is no object, and in one within it a key stands twice.
    ValueError
        It is not JSON, or goes on after the text's end.
    """
    try:
        return DECODER.raw_decode(text, place)
    except Lossy as error:
        found, end = _LENIENT.raw_decode(text, place)
        if not isinstance(found, dict):
            raise
        return FaultyRow(found, str(error)), end


def dumps(value: Any) -> str:
    """A value that was read here as JSON text, its numbers as they were written."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:  # there is a `Number` in it
        pass
    if isinstance(value, Number):
        return value.text
    if isinstance(value, dict):
        parts = (f"{json.dumps(k, ensure_ascii=False)}: {dumps(v)}" for k, v in value.items())
        return f"{{{', '.join(parts)}}}"
    return f"[{', '.join(map(dumps, value))}]"


def loads(text: str) -> Any:
    """The value of JSON text that `dumps` wrote."""
    return DECODER.decode(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if repr(found[key]) != repr(value):
                raise Lossy(about(TWICE, key))
    return found


def _without_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object less the keys that stand twice in it with different values."""
    found = dict(pairs)
    doubled = {key for key, value in pairs if repr(found[key]) != repr(value)}
    return {key: value for key, value in found.items() if key not in doubled}


def _float(text: str) -> float | Number:
    value = float(text)
    return value if len(text) <= _SURE and _in_range(text, value) else _long(text, value)


def _long(text: str, value: float) -> float | Number:
    """A number of many digits: the double whose digits these are, if there is one.

    The shortest digits that tell a double, or any number of its exact ones, rounded.
    """
    if repr(value) == text:
        return value
    if math.isinf(value):
        return Number(text)
    written, exact = Decimal(text), Decimal(value)
    digits = max(1, len(written.as_tuple().digits))
    rounded = Context(prec=digits).plus(exact)
    return value if written in (Decimal(repr(value)), rounded) else Number(text)


def _in_range(text: str, value: float) -> bool:
    zero = value == 0 and bool(set(text.lower().partition("e")[0]) & _NOT_ZERO)
    return not math.isinf(value) and not zero


_NOT_ZERO = frozenset("123456789")
DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float)
_LENIENT = json.JSONDecoder(object_pairs_hook=_without_doubled, parse_float=_float)
