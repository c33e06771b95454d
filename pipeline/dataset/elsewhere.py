"""Halves that lie in another column than the one they are read from, at rows where that has none.

A `caption` beside a `text` that is null would be generated anew: it is counted, so that it can be told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset.cells import image_cells
from pipeline.dataset.columns import image_kind, may_hold, text_kind
from pipeline.dataset.dataset import Dataset
from pipeline.dataset.forms.base import is_binary, is_list, is_string
from pipeline.dataset.forms.called import is_called, is_of_parts, may_be_called
from pipeline.dataset.forms.kinds import json_kinds
from pipeline.dataset.forms.names import is_image
from pipeline.dataset.forms.pictures import Pictures
from pipeline.dataset.halves import captions, json_captions, unpacked

HALVES = ("text", "image")
# By half, the column of `pipeline.dataset.findings.FILE_SCHEMA` that names such columns of a row.
PLACES = {half: f"{half}_elsewhere" for half in HALVES}
# What JPEG, PNG, GIF, WebP and TIFF begin with.
_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")


class Elsewhere:
    """Looks for a dataset's missing halves in the columns that pass through and are named for them.

    Pictures also in those that are named for nothing of the kind, where their values tell.

    Parameters
    ----------
    dataset : Dataset
    """

    def __init__(self, dataset: Dataset) -> None:
        self._images = dataset.images
        passed = list(zip(dataset.passed, dataset.extra_schema.names, strict=True))
        self._columns = {
            half: [
                (field, name)
                for field, name in passed
                if getattr(dataset.columns, half) not in (None, field.name)
                and not (half == "image" and _is_within(dataset.columns.image, field.name))
                and _may_have(half, field)
            ]
            for half in HALVES
        }

    def of(
        self, half: str, extra: pa.StructArray | None, missing: Sequence[bool]
    ) -> list[list[str] | None]:
        """For each row the columns that hold the half, by the names in the dataset; None for none.

        Parameters
        ----------
        half
            "text" or "image".
        extra
            The pass-through columns of the rows.
        missing
            Which of the rows have no such half.
        """
        found: list[list[str] | None] = [None] * len(missing)
        rows = [row for row, lost in enumerate(missing) if lost]
        if extra is None or not rows or not self._columns[half]:
            return found
        taken = extra.take(pa.array(rows))
        for field, name in self._columns[half]:
            if name not in taken.type.names:
                continue
            column = pc.struct_field(taken, name)
            for row, there in zip(rows, self._held(half, column, field), strict=True):
                if there:
                    found[row] = [*(found[row] or ()), field.name]
        return found

    def _held(self, half: str, column: pa.Array, field: pa.Field) -> list[bool]:
        if half == "text" and text_kind(field):
            values = column.to_pylist()
            if json_kinds(field) is not None:
                texts = json_captions(values)[0]
                return [bool(t) or _is_filled(v) for t, v in zip(texts, values, strict=True)]
            return [bool(texts) for texts in captions(values, text_kind(field) == "list")[0]]
        if half == "image" and image_kind(field):
            cells, told = image_cells(column, field), may_be_called(half, field.name)
            return [_is_picture(cell, self._images, told) for cell in cells]
        there = pc.list_value_length(column) if is_list(column.type) else column.is_valid()
        return [bool(one) for one in there.to_pylist()]


def _may_have(half: str, field: pa.Field) -> bool:
    """Whether a column is looked into for a half, by its name or, of pictures, its type."""
    if may_be_called(half, field.name) and may_hold(field.type, half):
        return True
    if half == "text" or is_of_parts(field.name) or is_called("text", field.name):
        return False
    return image_kind(field) is not None and _is_path_or_bytes(field.type)


def _is_path_or_bytes(kind: pa.DataType) -> bool:
    """Whether values are strings, bytes or both of an image, or lists of such, and nothing else."""
    while is_list(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return all(f.name in ("bytes", "path") and _is_path_or_bytes(f.type) for f in kind)
    return is_string(kind) or is_binary(kind)


def _is_within(column: str | None, other: str) -> bool:
    """Whether a column is named by a path through another."""
    return column is not None and column.startswith(f"{other}.")


def _is_filled(text: str | None) -> bool:
    """Whether JSON text is an object or a list with something in it, such as a dialogue."""
    return text is not None and text[0] in "[{" and any(map(str.isalnum, text))


def _is_picture(cell: dict[str, Any] | None, images: Pictures, is_told: bool) -> bool:
    """Whether a cell holds a picture, or the path of one that is there.

    Where the column's name has not told, it has to begin, or its path to end, as a picture does.
    """
    cell = unpacked(cell)
    if cell is None or cell.get("bytes"):
        return cell is not None and (is_told or cell["bytes"].startswith(_STARTS))
    path = cell.get("path")
    if not isinstance(path, str) or not path.strip() or not (is_told or is_image(path)):
        return False
    return images.find(path) is not None


def elsewhere(findings: Sequence[Path], rows: pa.Table, half: str) -> Counter[str]:
    """How many rows of a catalog lack a half that another column has, by that column.

    Parameters
    ----------
    findings
        Where what was found in each of the dataset's files is kept, in their order.
    rows
        Of `pipeline.dataset.catalog.Catalog`.
    half
        "text" or "image".
    """
    counts: Counter[str] = Counter()
    for number, place in enumerate(findings):
        found = pq.read_table(place, columns=["position", PLACES[half]])
        found = found.filter(pc.is_valid(found[PLACES[half]]))
        if not len(found):
            continue
        own = rows["position"].filter(pc.equal(rows["file"], number))
        kept = found.filter(pc.is_in(found["position"], own.combine_chunks()))
        for columns in kept[PLACES[half]].to_pylist():
            counts.update(columns)
    return counts
