"""JSON objects, read so that nothing is lost: what Python's parser would drop or change is refused."""

from __future__ import annotations

import json
import math
from typing import Any

from pipeline.dataset.forms.base import DatasetError


class Lossy(ValueError):
    """JSON that can't be read without a loss."""


def parse(text: str, place: str) -> Any:
    """The value of a JSON text.

    Raises
    ------
    DatasetError
        It is not JSON, a key stands twice in an object with different values, or a number is out
        of a double's range; `place` says where.
    """
    try:
        return DECODER.decode(text)
    except Lossy as error:
        raise DatasetError(f"{place}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{place}: not JSON ({error})") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if repr(found[key]) != repr(value):
                raise Lossy(f"the key {key!r} stands twice, with different values; keep one")
    return found


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value) or (value == 0 and set(text.lower().partition("e")[0]) & _NOT_ZERO):
        raise Lossy(f"the number {text[:40]} is out of range; write it as a string")
    return value


_NOT_ZERO = frozenset("123456789")
DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float)
