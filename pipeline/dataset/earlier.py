"""Rows of a dataset that are what a run of ours made: a half of them is generated, and counts as real here.

Whoever exports a completed dataset may give it to another run, as the dataset itself or as an external
one. Its pairs are learned from and shown as examples, so that it has to be told which of them a model wrote.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.settings import INTERNAL

logger = logging.getLogger(__name__)

# The columns by which each layout that we write tells generated halves.
_STATUS, _MISSING = "status", "missing"
_HALVES = ("image", "text")


def made_earlier(catalog: Catalog) -> list[str]:
    """A line on the rows with a generated half, by what an export of ours says of them; else none."""
    dataset = catalog.dataset
    if not {_STATUS, _MISSING} <= {field.name for field in dataset.passed}:
        return []
    count = 0
    for file in dataset.files:
        for _, batch in dataset.source.batches(file.name, [_STATUS, _MISSING]):
            told = zip(batch[_STATUS].to_pylist(), batch[_MISSING].to_pylist(), strict=True)
            count += sum(status == "completed" and half in _HALVES for status, half in told)
    if not count:
        return []
    return [
        f"{count} rows have a half that an earlier run generated ('{_STATUS}' is completed), which counts"
        " as real here; export the observed rows alone (--only observed) to leave them out"
    ]


def warn_of_earlier(catalogs: Mapping[str, Catalog]) -> None:
    """Log of the sources of a knowledge base which of their pairs are half generated."""
    for name, catalog in catalogs.items():
        source = "the dataset" if name == INTERNAL else f"external {name}"
        for line in made_earlier(catalog):
            logger.warning("%s: %s", source, line)
