"""What of a dataset is likely meant otherwise than it is read: told before a run, for nothing is lost by it yet."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence

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
# Where formats of tables keep which files hold the present rows.
_LOGS = {"Delta Lake": "_delta_log", "Hudi": ".hoodie"}
# A name of more words is a sentence.
_WORDS = 4
_NAMES = 3
# What Python, pandas, R and SQL write where nothing is, in lower case.
_NULLS = frozenset(("nan", "none", "null", "n/a", "na", "<na>", "#n/a", "nil", "undefined"))


def misread(dataset: Dataset) -> list[str]:
    """Lines on what is read in another way than whoever wrote it may have meant; looks at the first rows."""
    texts = _first_texts(dataset)
    return [
        *_partitions(dataset),
        *_versions(dataset),
        *_headers(dataset),
        *_written_out(dataset, texts),
        *_nulls(dataset, texts),
    ]


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


def _versions(dataset: Dataset) -> Iterator[str]:
    """Tables whose log says which of their files count: those that were replaced are read as well."""
    root = dataset.root
    for kind, log in _LOGS.items():
        if dataset.format == "parquet" and root.fs.isdir(f"{root.path}/{log}"):
            yield (
                f"the folder is a table of {kind} ({log}), and all Parquet files in it are read, also those of"
                " rows that were changed or deleted since: write its present rows as plain Parquet"
            )


def _headers(dataset: Dataset) -> Iterator[str]:
    """A first line of CSV that names columns as rows hold values: it counts as no row."""
    if dataset.format != "csv":
        return
    names = dataset.source.schema().names
    # Programs number columns that have no names.
    if names in ([str(start + n) for n in range(len(names))] for start in (0, 1)):
        return
    longest = max(len(name.split()) for name in names)
    if longest > _WORDS or (longest > 1 and any(map(str.isdecimal, names))):
        shown = ", ".join(repr(name[:_SHOWN]) for name in names[:_NAMES])
        yield (
            f"the first line of {table_names(dataset.source)[0]} counts as the names of columns, and not as"
            f" a row ({shown}): write a header above it if it is one"
        )


def _first_texts(dataset: Dataset) -> list[str]:
    """The texts of the first rows, where they are strings."""
    schema, name = dataset.source.schema(), dataset.columns.text
    if name is None or name not in schema.names:
        return []
    field = schema.field(name)
    if text_kind(field) != "string" or json_kinds(field) is not None:
        return []
    file = dataset.files[0].name
    _, batch = next(iter(dataset.source.batches(file, [name])), (None, None))
    if batch is None:
        return []
    return [text for text in utf8_strings(pc.drop_null(batch.column(name)), name)[0] if text]


def _written_out(dataset: Dataset, texts: Sequence[str]) -> Iterator[str]:
    """Texts that are lists or objects written out, each of which counts as one text."""
    texts = texts[:_LOOKED_AT]
    if texts and all(map(_is_written_out, texts)):
        yield (
            f"the texts in {dataset.columns.text!r} are lists or objects that are written out"
            f" ({texts[0][:_SHOWN]!r}), each of which counts as one text: write them as lists, in JSON or Parquet"
        )


def _nulls(dataset: Dataset, texts: Sequence[str]) -> Iterator[str]:
    """Texts that are what programs write for none."""
    found = Counter(text for text in texts if text.strip().lower() in _NULLS)
    if found:
        shown = ", ".join(map(repr, list(found)[:_NAMES]))
        yield (
            f"the texts of {found.total()} of the first rows in {dataset.columns.text!r} are {shown}, which"
            " counts as a text, and none is generated: leave them empty if there is none"
        )


def _is_written_out(text: str) -> bool:
    """Whether a text is a list or an object as Python or JSON write it: goes through it but once."""
    text = text.strip()
    ends, inside = text[:1] + text[1:][-1:], text[1:-1].strip()
    if ends == "[]":
        return not inside or (inside.startswith(_QUOTES) and inside[1:].endswith(_QUOTES))
    return ends == "{}" and inside.startswith(_QUOTES) and ":" in inside
