"""Rows that can't be read as they are: each keeps its place and says why, and no other row minds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.forms.base import DatasetError
from pipeline.dataset.forms.called import IDS, is_called
from pipeline.dataset.forms.names import is_image
from pipeline.dataset.forms.reasons import NOT_UTF8, about

# The column of a source's batch that says why rows can't be read; there where any can't.
FAULT = "__fault__"

# Two strings with a colon between them, in either kind of quotes, and how far they are looked for.
_NAMED = re.compile(
    r"""(["'])((?:(?!\1)[^\\]|\\.)*+)\1\s*:\s*(["'])((?:(?!\3)[^\\]|\\.)*+)\3""", re.DOTALL
)
_LOOKED_AT = 1 << 16

# So many rows that can't be read are a file that is not what it seems, where they are a tenth.
_MANY = 16
_SHARE = 10


class FaultyRow(dict[str, Any]):
    """A row as far as it could be read, and why no further.

    Parameters
    ----------
    values
        What of its columns is known as it came.
    fault
        One of `reasons`.
    """

    def __init__(self, values: Mapping[str, Any], fault: str) -> None:
        super().__init__(values)
        self.fault = fault


def images_in_json(text: str) -> dict[str, str]:
    """The images that text names which should have been a JSON object, by key.

    So the picture of a row that can't be read is known to have a row, and is none by itself.

    Examples
    --------
    >>> images_in_json('{"file_name": "1.png", "text": "a "red" hat"}')
    {'file_name': '1.png'}
    """
    found = {}
    for match in _NAMED.finditer(text[:_LOOKED_AT]):
        key, value = _spelled(match[2]), _spelled(match[4])
        if is_image(value):
            found[key] = value
    return found


def _spelled(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def images_in_fields(header: Sequence[str | None], fields: Sequence[str | None]) -> dict[str, str]:
    """The images that a line of other fields than the header names, by column, and its id if that is first.

    Where a delimiter stands in a text, the columns before it are counted from the left, and those
    after it from the right; of two that an image may be in, it is in the one that is called so.

    Examples
    --------
    >>> images_in_fields(["text", "file_name"], ["a red hat", " on a table", "1.png"])
    {'file_name': '1.png'}
    >>> images_in_fields(["id", "image", "text"], ["7", "1.png", "a hat", " red"])
    {'id': '7', 'image': '1.png'}
    """
    found = {}
    if header and fields and header[0] and header[0].lower() in IDS and fields[0]:
        found[header[0]] = fields[0]
    for place, value in enumerate(fields):
        if not value or not is_image(value):
            continue
        either = (place, len(header) - len(fields) + place)
        columns = [name for at in either if 0 <= at < len(header) and (name := header[at])]
        columns.sort(key=lambda name: not is_called("image", name))
        if columns and columns[0] not in found:
            found[columns[0]] = value
    return found


def utf8_strings(column: pa.Array, name: str) -> tuple[list[str | None], list[str | None]]:
    """The strings of a column called `name`, and why one can't be read: Arrow looks at none of them."""
    try:
        return column.to_pylist(), [None] * len(column)
    except UnicodeDecodeError:
        pass
    values: list[str | None] = []
    faults: list[str | None] = []
    for value in column:
        try:
            values.append(value.as_py())
            faults.append(None)
        except UnicodeDecodeError:
            values.append(None)
            faults.append(about(NOT_UTF8, name))
    return values, faults


def add_faults(
    fields: dict[str, pa.Field], arrays: dict[str, pa.Array], faults: Sequence[str | None]
) -> None:
    """Put a column of why rows can't be read beside the others, or fill the one that is there."""
    if any(faults):
        found = pa.array(faults, pa.string())
        fields[FAULT] = pa.field(FAULT, pa.string())
        arrays[FAULT] = pc.coalesce(arrays[FAULT], found) if FAULT in arrays else found


class Faults:
    """Counts a file's rows that can't be read, as it is read from its beginning."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows = 0
        self._faulty = 0

    def count(self, row: object) -> None:
        """Take in a row.

        Raises
        ------
        DatasetError
            So many can't be read that the file can't be what it seems.
        """
        self._rows += 1
        if isinstance(row, FaultyRow):
            self._faulty += 1
            if self._faulty >= _MANY and self._faulty * _SHARE >= self._rows:
                raise DatasetError(
                    f"{self._name}, row {self._rows - 1}: {row.fault}; {self._faulty} of its first"
                    f" {self._rows} rows can't be read"
                )
