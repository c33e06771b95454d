"""Which forms there are, and which one a folder holds."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.dataset.forms.arrow import ARROW_SUFFIXES
from pipeline.dataset.forms.base import DatasetError, Source
from pipeline.dataset.forms.coco import captions_files
from pipeline.dataset.forms.csv_records import Quotes
from pipeline.dataset.forms.delimiters import text_tables
from pipeline.dataset.forms.json_rows import picture_tables, wrong_tables
from pipeline.dataset.forms.metadata import is_metadata
from pipeline.dataset.forms.names import holds_rows, is_about, is_image, plain_name
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.sidecars import Sidecars
from pipeline.dataset.forms.unused import by_suffix

SOURCES: dict[str, str] = {
    "parquet": "pipeline.dataset.forms.parquet:ParquetSource",
    "imagefolder": "pipeline.dataset.forms.imagefolder:ImageFolderSource",
    "jsonl": "pipeline.dataset.forms.json_table:JsonLinesSource",
    "csv": "pipeline.dataset.forms.csv_table:CsvSource",
    "webdataset": "pipeline.dataset.forms.webdataset:WebDatasetSource",
    "img2dataset": "pipeline.dataset.forms.img2dataset:Img2DatasetSource",
    "coco": "pipeline.dataset.forms.coco:CocoSource",
    "arrow": "pipeline.dataset.forms.arrow:ArrowSource",
}

# Forms that a file's name tells, without the suffix of a compression.
_SUFFIXES = {
    "parquet": (".parquet", ".pq"),
    "arrow": ARROW_SUFFIXES,
    "webdataset": (".tar", ".tgz", ".tbz2", ".txz"),
    "jsonl": (".jsonl", ".ndjson"),
    "csv": (".csv", ".tsv"),
}
_SHARD = re.compile(r"(?:.*/)?\d+")


def open_source(
    form: str,
    root: Root,
    quotes: Quotes = "auto",
    folder: Path | None = None,
    prefix: str | None = None,
) -> Source:
    """The source of a form, over a root.

    `quotes` is for CSV, `folder` for what spares a reading, and `prefix` is what paths of images begin with
    that were written elsewhere.
    """
    module, _, name = SOURCES[form].partition(":")
    made = getattr(importlib.import_module(module), name)
    asked: dict[str, Any] = {"quotes": quotes} if form in ("csv", "imagefolder") else {}
    asked |= {"prefix": prefix} if form == "imagefolder" else {}
    source: Source = made(root, **asked)
    if folder is not None and (keep_in := getattr(source, "keep_in", None)):
        keep_in(folder)
    return source


def guess_format(root: Root) -> str:
    """Tell a dataset's form by the names of its files, and by the beginnings of JSON and text files.

    Raises
    ------
    DatasetError
        If they are of no known form, or of more than one.
    """
    names = root.names()
    if _is_img2dataset(names) and root.filled(filter(_is_list_of_shard, names)):
        return "img2dataset"
    metadata = list(filter(is_metadata, names))
    if root.filled(metadata):
        return "imagefolder"
    # Metadata without a byte is of no form: what else is there counts.
    forms = _by_suffix(root.filled(filter(holds_rows, names)) if metadata else names)
    if len(forms) > 1:
        forms = _by_suffix(root.filled(filter(holds_rows, names))) or forms
    if len(forms) > 1:
        raise DatasetError(
            f"{root.path} holds files of more than one form ({', '.join(forms)});"
            " set format, or a glob as path"
        )
    if forms:
        return forms[0]
    return next(_looked_into(root), "imagefolder" if metadata else "") or _nothing(root)


def _by_suffix(names: Sequence[str]) -> list[str]:
    """The forms that files are of by their suffixes."""
    return [
        form
        for form, suffixes in _SUFFIXES.items()
        if any(plain_name(n).endswith(suffixes) and not is_about(n) for n in names)
    ]


def _looked_into(root: Root) -> Iterator[str]:
    """Forms that only a look into files tells, the likeliest first."""
    pictures = any(map(is_image, root.names()))
    looks: list[tuple[str, Callable[[Root], object]]] = [
        ("coco", captions_files),
        ("jsonl", picture_tables),
        ("csv", text_tables),
        # What can't be read is refused only where nothing else tells of the pictures.
        ("jsonl", lambda root: wrong_tables(root) and not _has_sidecars(root)),
        ("imagefolder", lambda root: pictures),
        ("jsonl", lambda root: any(_is_json(n) for n in root.names())),
    ]
    yield from (form for form, look in looks if look(root))


def _is_img2dataset(names: list[str]) -> bool:
    """Whether there are img2dataset's tallies, or its lists of shards beside the shards."""
    if not any(map(_is_list_of_shard, names)):
        return False
    tallies = (n.rpartition("/")[2] for n in names if n.lower().endswith("_stats.json"))
    if any(base[:1].isdigit() for base in tallies):
        return True
    stems = [
        {n.removesuffix(end) for n in names if n.endswith(end) and _SHARD.fullmatch(n[: -len(end)])}
        for end in (".tar", ".parquet")
    ]
    return bool(stems[0]) and stems[0] == stems[1]


def _has_sidecars(root: Root) -> bool:
    return bool(Sidecars(root, [n for n in root.names() if is_image(n)]).names)


def _is_list_of_shard(name: str) -> bool:
    return name.endswith(".parquet") and _SHARD.fullmatch(name[:-8]) is not None


def _is_json(name: str) -> bool:
    return plain_name(name).endswith(".json") and not is_about(name)


def _nothing(root: Root) -> str:
    there = ", ".join(line for line in by_suffix(n for n in root.names() if not is_about(n)))
    raise DatasetError(
        f"{root.path} holds no dataset: no Parquet, Arrow, JSON, CSV, tar or image files"
        + (f"; there are {there}" if there else "")
    )
