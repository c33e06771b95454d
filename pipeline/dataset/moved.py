"""Paths of images that lead nowhere as they were written elsewhere, and somewhere without their beginning."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator

import pyarrow.compute as pc

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import Dataset
from pipeline.dataset.forms.names import is_image
from pipeline.dataset.forms.reasons import NO_FILE, ONLY_URL, OUTSIDE

_NOT_FOUND = (NO_FILE, OUTSIDE, ONLY_URL)
# So many different paths are looked at.
_LOOKED_AT = 4096
_SEPARATOR = re.compile(r"[/\\]+")


def moved(catalog: Catalog) -> list[str]:
    """Lines on images that rows name by a path from elsewhere, and what setting lets them be found.

    Only pictures count that no row has found: those of other rows are other pictures.
    """
    dataset = catalog.dataset
    paths = paths_told(catalog, _NOT_FOUND)
    if not paths:
        return []
    # The pictures of an image folder that no metadata names are rows of their own, and free.
    described = getattr(dataset.source, "described", catalog.image_paths)
    taken = set(described())
    prefixes: Counter[str] = Counter()
    for path, rows in paths.items():
        prefixes.update(dict.fromkeys(_prefixes(path, dataset, taken), rows))
    if not prefixes:
        return []
    prefix = max(prefixes, key=lambda one: (prefixes[one], -len(one)))
    return [
        f"images of rows that are not found as they are named, and are there without {prefix!r} before"
        f" their names: {prefixes[prefix]}; set image_prefix to {prefix!r}, if they are the same"
    ]


def paths_told(catalog: Catalog, kinds: Collection[str]) -> Counter[str]:
    """The paths of images that reasons of some kinds tell of, and how many rows each; at most some thousands."""
    found: Counter[str] = Counter()
    for item in pc.value_counts(catalog.table["image_reason"]).to_pylist():
        kind, _, path = (item["values"] or "").partition(" '")
        if kind in kinds and path.endswith("'"):
            found[path[:-1]] += item["counts"]
        if len(found) >= _LOOKED_AT:
            break
    return found


def _prefixes(path: str, dataset: Dataset, taken: set[str]) -> Iterator[str]:
    """What may be left off a path so that it leads to a picture, the least first."""
    start = path.find("://") + 3 if "://" in path else 0
    for found in _SEPARATOR.finditer(path, start):
        rest = path[found.end() :]
        place = dataset.images.find(rest, loosely=False) if rest and found.start() else None
        if place is not None and is_image(path) and taken.isdisjoint((place, rest)):
            yield path[: found.start()]
