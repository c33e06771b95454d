"""The tables that describe the images of a folder, whatever form they are in."""

from __future__ import annotations

import posixpath

from pipeline.dataset.forms.base import DatasetError, Source
from pipeline.dataset.forms.csv_records import Quotes
from pipeline.dataset.forms.names import plain_name
from pipeline.dataset.forms.parquet import ParquetSource
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.table import CsvSource, JsonLinesSource

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
