"""The values of an image column, whatever its type, as cells of bytes, a path, or a reason for neither."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.forms import called
from pipeline.dataset.forms.base import IMAGE_CELL, is_binary, is_list
from pipeline.dataset.forms.inline import inline_image
from pipeline.dataset.forms.kinds import json_kinds
from pipeline.dataset.forms.reasons import NO_PATH
from pipeline.dataset.forms.strict_json import dumps, loads


def image_cells(
    column: pa.Array, field: pa.Field, is_there: Callable[[str], bool] = lambda path: True
) -> list[dict[str, Any] | None]:
    """The image column's values as {bytes, path, reason}.

    Of a list it is the first that is an image or whose path is there; else the first that is anything.
    """
    if json_kinds(field) is not None:
        return [_json_cell(text, is_there) for text in column.to_pylist()]
    if is_list(column.type):
        held = image_cells(column.flatten(), field.type.value_field)
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_pylist()
        ends = list(accumulate(lengths))
        return [
            _first(held[end - length : end], is_there)
            for end, length in zip(ends, lengths, strict=True)
        ]
    if pa.types.is_struct(column.type):
        # What else stands there may be what Python does not have, such as a far time.
        parts = {f.name: part for f, part in zip(column.type, column.flatten(), strict=True)}
        told = {name: parts[name].to_pylist() for name in IMAGE_CELL.names if name in parts}
        empty = {"bytes": None, "path": None}
        return [
            empty | {name: values[row] for name, values in told.items()} if there else None
            for row, there in enumerate(column.is_valid().to_pylist())
        ]
    key = "bytes" if is_binary(column.type) else "path"
    other = "path" if key == "bytes" else "bytes"
    return [None if v is None else {key: v, other: None} for v in column.to_pylist()]


def _first(cells: list[dict[str, Any] | None], is_there: Callable[[str], bool]) -> Any:
    """Of the images of a row the one that counts."""
    held = [cell for cell in cells if cell and (cell["bytes"] or cell["path"])]
    good = (c for c in held if c["bytes"] or is_there(c["path"]))
    return next(good, None) or next(filter(None, [*held, *cells]), None)


def _json_cell(text: str | None, is_there: Callable[[str], bool]) -> dict[str, Any] | None:
    return _cell(None if text is None else json.loads(text), is_there)


def _cell(value: Any, is_there: Callable[[str], bool]) -> dict[str, Any] | None:
    if isinstance(value, list):
        return _first([_cell(item, is_there) for item in value], is_there)
    if isinstance(value, dict):
        # Bytes can only be written out in JSON, and are unpacked where a path is.
        data, path = value.get("bytes"), _path_in(value)
        packed = isinstance(data, str) and inline_image(data) is not None
        value = data if packed else value if path is None else path
    if isinstance(value, str) or value is None:
        return None if value is None else {"bytes": None, "path": value}
    return {"bytes": None, "path": None, "reason": NO_PATH}


def _path_in(told: dict[str, Any]) -> str | None:
    """What an object that tells of an image says of its place: a file rather than an address."""
    lower = {key.lower(): value for key, value in told.items() if isinstance(value, str) and value}
    found = [lower[key] for key in called.PLACES if key in lower]
    files = (path for path in found if "://" not in path)
    return next(files, found[0] if found else None)


def without_bytes(text: str | None) -> str | None:
    """What JSON tells of an image beside its bytes and its place; None where that is nothing.

    Other images of the row, and what is told of them, stay.
    """
    told = None if text is None else loads(text)
    cell = _cell(told, lambda path: True)
    shown = cell["path"] if cell else None
    if isinstance(told, list):
        if not shown or inline_image(shown) is None:
            return text
        rest = _without(told, shown)
        return dumps(rest) if rest else None
    if not isinstance(told, dict):
        return None
    if shown and inline_image(shown) is not None:
        told = _without(told, shown)
    rest = {key: value for key, value in told.items() if key != "bytes" and value is not None}
    return None if not rest or (len(rest) == 1 and _path_in(rest)) else dumps(rest)


def _without(told: Any, image: str) -> Any:
    """A value less an image that is written out at any depth of it, and less what then tells nothing."""
    if isinstance(told, list):
        rest = [_without(item, image) for item in told if item != image]
        return [item for item in rest if item != {}]
    if not isinstance(told, dict):
        return told
    held = image in told.values()
    return {
        key: _without(value, image)
        for key, value in told.items()
        if value != image and not (held and value is None)
    }
