"""The column of images, where its name doesn't tell it: the one whose values are names of images."""

from __future__ import annotations

import pyarrow as pa

from pipeline.dataset.columns import ColumnSettings, guess_columns
from pipeline.dataset.forms.base import Source, is_string
from pipeline.dataset.forms.names import is_image

_LOOKED_AT = 64


def guess_image(asked: ColumnSettings, source: Source) -> ColumnSettings:
    """The settings of columns, with an image column that is known only by its values.

    Of the first file's first rows all values have to end as an image's name does; addresses on the
    web are none.
    """
    schema = source.schema()
    if asked.image is not None or guess_columns(schema).image is not None:
        return asked
    strings = [f.name for f in schema if is_string(f.type) and f.name not in (asked.id, asked.text)]
    name = next(iter(file.name for file in source.files()), None)
    if name is None or not strings:
        return asked
    for _, batch in source.batches(name, strings):
        rows = batch.slice(0, _LOOKED_AT)
        held = {column: list(filter(None, _texts(rows[column]))) for column in strings}
        found = [column for column, values in held.items() if values and all(map(_names, values))]
        return asked.model_copy(update={"image": found[0]}) if found else asked
    return asked


def _texts(column: pa.Array) -> list[str | None]:
    # Arrow takes a file's word for its strings being UTF-8; whoever reads the rows will look.
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    found = plain.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
    return [None if value is None else value.decode("utf-8", "replace") for value in found]


def _names(value: str) -> bool:
    return is_image(value) and "://" not in value
