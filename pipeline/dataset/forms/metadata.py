"""The tables that describe the images of a folder, whatever form they are in."""

from __future__ import annotations

import posixpath

import pyarrow as pa

from pipeline.dataset.forms.base import DatasetError, Source
from pipeline.dataset.forms.csv_records import Quotes
from pipeline.dataset.forms.csv_table import CsvSource
from pipeline.dataset.forms.faulty import utf8_strings
from pipeline.dataset.forms.json_table import JsonLinesSource
from pipeline.dataset.forms.kinds import json_kinds, loose_strings
from pipeline.dataset.forms.names import plain_name
from pipeline.dataset.forms.parquet import ParquetSource
from pipeline.dataset.forms.root import Root

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.tsv", "metadata.parquet")


class _MetadataParquet(ParquetSource):
    def names(self) -> list[str]:
        return [n for n in super().names() if is_metadata(n)]


def is_metadata(name: str) -> bool:
    """Whether a file describes the images of its folder, by its name in any case."""
    return plain_name(posixpath.basename(name)) in METADATA


def open_metadata(root: Root, names: list[str], quotes: Quotes) -> Source | None:
    """The source of the metadata files of those names; None where there are none.

    Raises
    ------
    DatasetError
        They are of more than one kind.
    """
    kinds = {posixpath.splitext(plain_name(n))[1] for n in names}
    if not kinds:
        return None
    if len(kinds) > 1:
        raise DatasetError(
            f"{root.path} holds metadata of more than one kind"
            f" ({', '.join(sorted(kinds))}); keep one"
        )
    kind = kinds.pop()
    if kind == ".jsonl":
        return JsonLinesSource(root, names)
    if kind in (".csv", ".tsv"):
        return CsvSource(root, names, quotes)
    return _MetadataParquet(root)


def strings_of(batch: pa.RecordBatch, column: str) -> tuple[list[str | None], list[str | None]]:
    """The strings of a column, and why one can't be read."""
    at = batch.schema.get_field_index(column)
    if json_kinds(batch.schema.field(at)) is not None:
        return loose_strings(batch.column(at)), [None] * batch.num_rows
    return utf8_strings(batch.column(at), column)


def path_from(folder: str, path: str) -> str:
    """A path that the metadata of a folder names, from the root."""
    if "://" in path or path.startswith(("/", "data:")):
        return path
    joined = posixpath.join(folder, path)
    # "a/../b" is tidied only where no link can make it another place; the root judges the rest.
    return joined if ".." in path.split("/") else posixpath.normpath(joined)
