"""What has to be known of a source before its rows are read: its tables, columns, the one of images."""

from __future__ import annotations

import pyarrow as pa

from pipeline.dataset.columns import NONE, ColumnSettings, guess_columns
from pipeline.dataset.forms.base import Source, is_string
from pipeline.dataset.forms.names import is_image
from pipeline.dataset.forms.rows import with_empty

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
        try:
            rows = batch.slice(0, _LOOKED_AT).to_pydict()
        except UnicodeDecodeError:  # which the reading will tell of
            return asked
        held = {column: [value for value in rows[column] if value] for column in strings}
        found = [column for column, values in held.items() if values and all(map(_is_name, values))]
        return asked.model_copy(update={"image": found[0]}) if found else asked
    return asked


def _is_name(value: str) -> bool:
    return is_image(value) and "://" not in value


def known_schema(source: Source, asked: ColumnSettings) -> pa.Schema:
    """The columns of a source, with those that are asked for and may come later in JSON."""
    schema = source.schema()
    if not schema.names or getattr(source, "columns", None) is None:
        return schema
    named = [asked.id, asked.image, asked.text, *(asked.extra or ())]
    late = [n for n in dict.fromkeys(named) if n not in (None, NONE) and n not in schema.names]
    return with_empty(schema, late) if late else schema


def has_files(source: Source) -> bool:
    return next(iter(table_names(source)), None) is not None


def table_names(source: Source) -> list[str]:
    names = getattr(source, "names", None)
    return names() if names else [file.name for file in source.files()]
