"""Files of several splits that are read as one dataset: told, lest a test set is learned from."""

from __future__ import annotations

import re
from collections import Counter

from pipeline.dataset.catalog import Catalog

# Names of splits in those of files and folders, by what they are called here.
_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}


def split_of(name: str) -> str | None:
    """The split that the name of a file tells, the last of its parts that does.

    Examples
    --------
    >>> split_of("data/test-00000-of-00002.parquet"), split_of("train2017/contest.jsonl")
    ('test', 'train')
    """
    words = re.findall(r"[a-z]+", name.lower())
    return next((_SPLIT_OF[word] for word in reversed(words) if word in _SPLIT_OF), None)


def mixed_splits(catalog: Catalog) -> list[str]:
    """A line where the rows of a dataset come of files of several splits."""
    rows: Counter[str] = Counter()
    for number, count in zip(*catalog.rows_by_file(), strict=True):
        rows[split_of(catalog.dataset.files[number].name) or "no split"] += count
    if len(rows.keys() - {"no split"}) < 2:
        return []
    told = ", ".join(f"{name} {rows[name]}" for name in (*_NAMES, "no split") if rows[name])
    return [
        f"files of several splits are one dataset (rows: {told}): pairs of each are learned from and"
        " shown for rows of the others; set dataset.path to the files of one, as in data/train*"
    ]
