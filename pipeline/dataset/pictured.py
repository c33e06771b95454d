"""Columns whose values are the names of pictures, less their suffix: told where no row has a picture otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa

from pipeline.dataset.dataset import Dataset
from pipeline.dataset.forms.base import BATCH_ROWS, is_string
from pipeline.dataset.forms.faulty import utf8_strings
from pipeline.dataset.forms.kinds import json_kinds, loose_strings
from pipeline.dataset.opening import table_names

_BATCHES = 4
# Less may be chance: a column of numbers has the names of numbered pictures.
_SHARE = 0.5
_WIDTHS = 16


def pictured(dataset: Dataset, pictures: Collection[str]) -> list[str]:
    """A line on the column that names the most pictures which no row has; looks at the first rows.

    Parameters
    ----------
    dataset : Dataset
        In which no row has an image.
    pictures
        The pictures of its folder, or in zips there, that are not used.
    """
    found: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    numbers: set[str] = set()
    for batch in _first_batches(dataset):
        for field in batch.schema:
            values = _values(batch, field)
            rows[field.name] += len(values)
            if pa.types.is_integer(field.type):
                numbers.add(field.name)
                found[field.name] += _named_by_numbers(values, pictures)
            else:
                found[field.name] += sum(_is_name(dataset, value) for value in values)
    # The first of several, where all the same pictures are named.
    best = max(found, key=lambda name: found[name], default=None)
    if best is None or not found[best] or found[best] < _SHARE * rows[best]:
        return []
    told = f"{best!r} has the names of pictures without their suffix ({found[best]} of the first {rows[best]} rows)"
    if best in numbers:
        return [f"{told}, as numbers: write the names as a column of images, if they are the rows'"]
    return [f"{told}: set columns.image to {best!r}, if they are the rows'"]


def _first_batches(dataset: Dataset) -> Iterator[pa.RecordBatch]:
    """Of the first files what may be names, ids before other columns."""
    schema = dataset.source.schema()
    fits = [f.name for f in schema if is_string(f.type) or pa.types.is_integer(f.type)]
    names = [name for name in fits if name not in (dataset.columns.image, dataset.columns.text)]
    names.sort(key=lambda name: name != dataset.columns.id)
    for file in table_names(dataset.source)[:_BATCHES] if names else ():
        for _, batch in dataset.source.batches(file, names):
            yield batch.select(names).slice(0, BATCH_ROWS)
            break


def _values(batch: pa.RecordBatch, field: pa.Field) -> Sequence[str]:
    column = batch.column(field.name)
    if json_kinds(field) is not None:
        held = loose_strings(column)
    else:
        held = utf8_strings(column.cast(pa.string()), field.name)[0]
    return [value for value in held if value and value.strip()]


def _is_name(dataset: Dataset, value: str) -> bool:
    return "://" not in value and dataset.images.find(value) is not None


def _named_by_numbers(values: Sequence[str], pictures: Collection[str]) -> int:
    """How many numbers are the names of pictures, with zeros before them or without."""
    stems = {name.rpartition("/")[2].rpartition(".")[0] for name in pictures}
    plain = {stem.lstrip("0") or "0" for stem in stems if stem.isdecimal() and len(stem) <= _WIDTHS}
    return sum(value in plain for value in values)
