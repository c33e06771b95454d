"""Which forms there are, and which one a folder holds."""

from __future__ import annotations

import importlib

from pipeline.dataset.forms.base import DatasetError, Source
from pipeline.dataset.forms.csv_records import Quotes
from pipeline.dataset.forms.names import is_image
from pipeline.dataset.forms.root import Root

SOURCES: dict[str, str] = {
    "parquet": "pipeline.dataset.forms.parquet:ParquetSource",
    "imagefolder": "pipeline.dataset.forms.imagefolder:ImageFolderSource",
    "jsonl": "pipeline.dataset.forms.table:JsonLinesSource",
    "csv": "pipeline.dataset.forms.table:CsvSource",
    "webdataset": "pipeline.dataset.forms.webdataset:WebDatasetSource",
    "img2dataset": "pipeline.dataset.forms.img2dataset:Img2DatasetSource",
}


def open_source(form: str, root: Root, quotes: Quotes = "auto") -> Source:
    """The source of a form, over a root; `quotes` is for CSV."""
    module, _, name = SOURCES[form].partition(":")
    made = getattr(importlib.import_module(module), name)
    return made(root, quotes=quotes) if form in ("csv", "imagefolder") else made(root)


def guess_format(root: Root) -> str:
    """Tell a dataset's form by the names of its files.

    Raises
    ------
    DatasetError
        If they are of no known form, or of more than one.
    """
    names = [n.lower() for n in root.names()]
    ends = {n: n.rpartition("/")[2] for n in names}
    if any(n.endswith("_stats.json") and n.rpartition("/")[2][:1].isdigit() for n in names):
        return "img2dataset"
    if any(
        base in ("metadata.jsonl", "metadata.csv", "metadata.parquet") for base in ends.values()
    ):
        return "imagefolder"
    found = {
        "parquet": any(n.endswith((".parquet", ".pq")) for n in names),
        "webdataset": any(n.endswith((".tar", ".tar.gz", ".tgz")) for n in names),
        "jsonl": any(n.endswith((".jsonl", ".ndjson")) for n in names),
        "csv": any(n.endswith((".csv", ".tsv")) for n in names),
    }
    forms = [form for form, there in found.items() if there]
    if len(forms) > 1:
        raise DatasetError(
            f"{root.path} holds files of more than one form ({', '.join(forms)});"
            " set format, or a glob as path"
        )
    if forms:
        return forms[0]
    if any(is_image(n) for n in names):
        return "imagefolder"
    if any(n.endswith(".json") for n in names):
        return "jsonl"
    raise DatasetError(
        f"{root.path} holds no dataset: no Parquet, JSON Lines, CSV, tar or image files"
    )
