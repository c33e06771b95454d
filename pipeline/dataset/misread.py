"""What of a dataset is likely meant otherwise than it is read: told before a run, for nothing is lost by it yet."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

import pyarrow.compute as pc

from pipeline.dataset.columns import text_kind
from pipeline.dataset.dataset import Dataset
from pipeline.dataset.forms.faulty import utf8_strings
from pipeline.dataset.forms.kinds import json_kinds
from pipeline.dataset.opening import table_names

_LOOKED_AT = 64
_SHOWN = 40
# A folder of Spark or Hive that tells a column's value.
_PARTITION = re.compile(r"([^=/]+)=[^/]*")
_QUOTES = ('"', "'")


def misread(dataset: Dataset) -> list[str]:
    """Lines on what is read in another way than whoever wrote it may have meant; looks at the first rows."""
    return [*_partitions(dataset), *_written_out(dataset)]


def _partitions(dataset: Dataset) -> Iterator[str]:
    """Columns whose values stand in the names of folders."""
    folders = {posixpath.dirname(name) for name in table_names(dataset.source)}
    parts = (_PARTITION.fullmatch(part) for folder in folders for part in folder.split("/"))
    names = dict.fromkeys(sorted(found[1] for found in parts if found))
    for name in names:
        if name not in dataset.source.schema().names:
            yield (
                f"the folders {name}=… tell values of a column {name!r}, which is not read: write it into"
                " the files if it is to pass through"
            )


def _written_out(dataset: Dataset) -> Iterator[str]:
    """Texts that are lists or objects written out, each of which counts as one text."""
    schema, name = dataset.source.schema(), dataset.columns.text
    if name is None or name not in schema.names:
        return
    field = schema.field(name)
    if text_kind(field) != "string" or json_kinds(field) is not None:
        return
    file = dataset.files[0].name
    _, batch = next(iter(dataset.source.batches(file, [name])), (None, None))
    if batch is None:
        return
    first = batch.column(name).slice(0, _LOOKED_AT)
    texts = [text for text in utf8_strings(pc.drop_null(first), name)[0] if text]
    if texts and all(map(_is_written_out, texts)):
        yield (
            f"the texts in {name!r} are lists or objects that are written out ({texts[0][:_SHOWN]!r}), each of"
            " which counts as one text: write them as lists, in JSON or Parquet"
        )


def _is_written_out(text: str) -> bool:
    """Whether a text is a list or an object as Python or JSON write it: goes through it but once."""
    text = text.strip()
    ends, inside = text[:1] + text[1:][-1:], text[1:-1].strip()
    if ends == "[]":
        return not inside or (inside.startswith(_QUOTES) and inside[1:].endswith(_QUOTES))
    return ends == "{}" and inside.startswith(_QUOTES) and ":" in inside
