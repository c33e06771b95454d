"""The halves of a row as they are stored: which are there, and why the others are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.dataset.forms import reasons
from pipeline.dataset.forms.base import DatasetError, stored
from pipeline.dataset.forms.faulty import FAULT
from pipeline.dataset.forms.inline import inline_image
from pipeline.dataset.forms.names import is_image
from pipeline.dataset.forms.strict_json import dumps, loads
from pipeline.dataset.forms.widening import to_type
from pipeline.dataset.images import UndecodableImage, decode

Cell = dict[str, Any] | None

# What Arrow says of a value that is none of its column's type, or none in Parquet, and what we say.
_OF_A_VALUE = (
    ("Invalid UTF8", reasons.NOT_UTF8),
    ("whole number of days", reasons.NOT_KEPT),
    ("would lose data", reasons.NOT_KEPT),
    ("out of bounds", reasons.NOT_KEPT),
    ("acceptable range", reasons.NOT_KEPT),
    ("in precision", reasons.NOT_KEPT),
)


def captions(values: list[Any], is_list: bool) -> tuple[list[list[str]], list[str | None]]:
    """The captions of each row that are not blank, and why there are none."""
    lists = values if is_list else [None if value is None else [value] for value in values]
    texts = [[text for text in row or () if text and reasons.is_visible(text)] for row in lists]
    found = [None if kept else _blank_reason(row) for kept, row in zip(texts, lists, strict=True)]
    return texts, found


def json_captions(values: list[str | None]) -> tuple[list[list[str]], list[str | None]]:
    """`captions` of a column that is JSON text, since strings and other things stand in it.

    A number is the text that it is written as; objects and truths are no texts.
    """
    rows = [None if text is None else _spelled(loads(text)) for text in values]
    texts, found = captions([None if row is _NO_STRING else row for row in rows], True)
    named = [
        reasons.NO_STRING if row is _NO_STRING else why
        for row, why in zip(rows, found, strict=True)
    ]
    return texts, named


_NO_STRING: list[Any] = []


def _spelled(value: Any) -> list[str | None] | None:
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, (dict, list, bool)) for item in items):
        return _NO_STRING
    texts = [
        item if item is None or isinstance(item, str) else None if item != item else dumps(item)
        for item in items
    ]
    return texts if isinstance(value, list) or texts[0] is not None else None


def path_to_read(cell: Cell) -> str | None:
    """The path that an image has to be read from, or None if its cell says all there is."""
    if cell is None or cell["bytes"] or cell.get("reason") is not None:
        return None
    # Bytes that are empty hide no path.
    return cell["path"] or None if cell["bytes"] is not None else cell["path"]


def unpacked(cell: Cell) -> Cell:
    """A cell with the bytes of an image that is written out where a path may stand."""
    if cell is None or cell["bytes"] is not None or not cell["path"]:
        return cell
    data = inline_image(cell["path"])
    return cell if data is None else {**cell, "bytes": data, "path": None}


def in_cell(cell: Cell) -> tuple[bytes | None, str | None]:
    """The bytes in a cell, or why there are none."""
    if cell is None:
        return None, reasons.NO_IMAGE
    if cell["bytes"]:
        return cell["bytes"], None
    if cell["bytes"] is not None:
        return None, reasons.EMPTY_IMAGE
    return None, cell.get("reason") or reasons.NO_IMAGE


def check_images(column: str | None, cells: list[Cell], is_there: Callable[[str], bool]) -> None:
    """Raise a `DatasetError` if the first cells of an image column show that it holds none."""
    paths = [c["path"] for c in cells if c and c["bytes"] is None and c["path"]]
    strange = [p for p in paths if not is_image(p) and "://" not in p and not _like_path(p)]
    if len(paths) >= 4 and len(strange) == len(paths) and not any(map(is_there, strange)):
        raise DatasetError(
            f"column {column!r} holds texts, not images or paths of images"
            f" (the first: {strange[0][:60]!r}); set columns.image"
        )
    held = [c["bytes"] for c in cells if c and c["bytes"]]
    if len(held) >= 8 and not any(_like_image(data) for data in held):
        raise DatasetError(f"column {column!r} holds bytes that are no images; set columns.image")


def _blank_reason(captions: list[str | None] | None) -> str:
    if captions is None or (captions and all(caption is None for caption in captions)):
        return reasons.NO_TEXT
    joined = "".join(caption or "" for caption in captions)
    if not joined:
        return reasons.EMPTY_TEXT
    return reasons.INVISIBLE if joined.strip() else reasons.WHITE_SPACE


def readable_rows(
    name: str, positions: np.ndarray, batch: pa.RecordBatch
) -> tuple[pa.RecordBatch, dict[int, str]]:
    """A batch less its column `FAULT`, and why rows of it can't be read, by their number in it.

    Values that are not UTF-8 are null in it, for Arrow takes a file's word for that, and so are those
    that the completed Parquet has no room for.

    Raises
    ------
    DatasetError
        The values of a column are damaged.
    """
    faults: dict[int, str] = {}
    if FAULT in batch.schema.names:
        told = batch.column(FAULT).to_pylist()
        faults = {row: fault for row, fault in enumerate(told) if fault is not None}
        batch = batch.drop_columns([FAULT])
    for at, field in enumerate(batch.schema):
        bad = _bad_values(name, positions, field.name, batch.column(at))
        if bad:
            rows = [None if row in bad else row for row in range(batch.num_rows)]
            kept = batch.column(at).take(pa.array(rows, pa.int64()))
            batch = batch.set_column(at, field.with_nullable(True), kept)
            faults |= bad
    return batch, faults


def _bad_values(name: str, positions: np.ndarray, column: str, values: pa.Array) -> dict[int, str]:
    """The rows of a column that hold text which is not UTF-8, or what Parquet can't hold, and which of them."""
    kind = stored(values.type)
    if _fault(values, kind) is None:
        return {}
    # A slice of lists would be looked at with the values of all.
    faults = {row: _fault(values.take(pa.array([row])), kind) for row in range(len(values))}
    told = {row: said for row, said in faults.items() if said}
    bad = {row: next((why for text, why in _OF_A_VALUE if text in told[row]), None) for row in told}
    if None in bad.values() or not bad:
        other = next((told[row] for row, why in bad.items() if why is None), None)
        raise DatasetError(
            f"{name}, rows {positions[0]} to {positions[-1]}: column {column!r} is damaged"
            f" ({str(other or _fault(values, kind))[:120]})"
        )
    return {row: reasons.about(str(why), column) for row, why in bad.items()}


def _fault(values: pa.Array, kind: pa.DataType) -> str | None:
    """What is wrong with values, or with what they are in another type."""
    try:
        values.validate(full=True)
        if not kind.equals(values.type):
            to_type(values, kind)
    except pa.ArrowInvalid as error:
        return str(error)
    return None


def _like_path(text: str) -> bool:
    """Whether a string may be a path without an image's suffix: short, and not a sentence."""
    return len(text) < 256 and len(text.split()) < 3 and ("/" in text or "." in text)


def _like_image(data: bytes) -> bool:
    try:
        decode(data, max_pixels=4096)
    except UndecodableImage as fault:
        return fault.reason != "undecodable"
    return True
