"""Fields within columns that may hold a half, by the paths that name them, as the first rows have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.dataset.dataset import Dataset
from pipeline.dataset.forms.base import BATCH_ROWS, untimed
from pipeline.dataset.forms.called import may_be_called
from pipeline.dataset.forms.kinds import json_kinds
from pipeline.dataset.forms.names import is_image
from pipeline.dataset.forms.strict_json import loads
from pipeline.dataset.forms.widening import to_type
from pipeline.dataset.opening import table_names

_BATCHES = 4
_SHOWN = 3
# Of lists of lists, and of objects in objects, no more is looked at.
_DEPTH = 6


def paths_within(dataset: Dataset, column: str, half: str) -> list[str]:
    """Paths through a column to what may be a half, those called as one first; looks at the first rows.

    Parameters
    ----------
    dataset : Dataset
    column
        Of the dataset's source.
    half
        "text" or "image".
    """
    found: Counter[str] = Counter()
    for value in _first_values(dataset, column):
        # A path counts once a row, however many items of a list it leads to.
        found.update(set(_leaves(value, column, half, _DEPTH)))
    named = [path for path in found if path != column]
    # What is called as the half comes before the rest, and what more rows have before what fewer have.
    calls = {path: not may_be_called(half, path.rpartition(".")[2]) for path in named}
    return sorted(named, key=lambda path: (calls[path], -found[path], path))[:_SHOWN]


def _first_values(dataset: Dataset, column: str) -> Iterator[Any]:
    for name in table_names(dataset.source)[:_BATCHES]:
        for number, (_, batch) in enumerate(dataset.source.batches(name, [column])):
            field = batch.schema.field(column)
            # As Python's values, for the shape differs by row.
            values = _values(batch.column(column).slice(0, BATCH_ROWS), field)
            yield from (value for value in values if value is not None)
            if number + 1 == _BATCHES:
                break


def _values(values: pa.Array, field: pa.Field) -> list[Any]:
    try:
        held = to_type(values, untimed(values.type)).to_pylist()
    except ValueError:  # rows that are not UTF-8, which will be told of
        return []
    return held if json_kinds(field) is None else [v and loads(v) for v in held]


def _leaves(value: Any, path: str, half: str, depth: int) -> Iterator[str]:
    """The paths to what may be a half in a value."""
    if not depth:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}", half, depth - 1)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            if isinstance(item, dict) and list(item) == ["key", "value"]:
                yield from _leaves(item["value"], f"{path}.{item['key']}", half, depth - 1)
            else:  # no half is a list of lists
                inner = f"{path}.{place}" if isinstance(item, list) else path
                yield from _leaves(item, inner, half, depth - 1)
    elif isinstance(value, str):
        if value.strip() and is_image(value) == (half == "image"):
            yield path
    elif isinstance(value, bytes) and half == "image" and value:
        yield path
