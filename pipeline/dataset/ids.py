"""Ids of a dataset's rows: what those without one are known by, and which stand twice."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.dataset import Dataset
from pipeline.dataset.forms.base import DatasetError
from pipeline.storage.digests import in_hex

logger = logging.getLogger(__name__)


class DuplicateIds(DatasetError):
    """An id stands twice, where each must be one row's; `twice` names both rows.

    `loses` says whether a row after the first of its id holds something that the first does not, and
    `halves` whether each of the two holds a half that the other lacks.
    """

    def __init__(self, twice: str, loses: bool, halves: bool = False) -> None:
        advice = (
            "and each holds a half that the other lacks; write both halves of a row into one row, in a tar"
            " one after the other"
            if halves
            else "and the second holds what the first does not; make ids unique, name another column of"
            " ids, or set columns.id: none"
            if loses
            else "with the same content; make ids unique, or set dataset.on_duplicate: first"
        )
        super().__init__(f"{twice}, {advice}")
        self.twice = twice
        self.loses = loses


def with_ids(table: pa.Table, dataset: Dataset) -> pa.Table:
    """Rows with ids for those that have none: a digest of the observed halves and an occurrence number."""
    without = pc.is_null(table["id"]).combine_chunks()
    if not without.true_count:
        return table
    if dataset.has_id:
        logger.warning(
            "%d rows have no id in %r: each is known by what it holds, and is a new one when that"
            " changes",
            without.true_count,
            dataset.columns.id,
        )
    seen: Counter[str] = Counter()
    ids = []
    for whole in in_hex(table["content"].filter(without)):
        content = str(whole)[:24]
        seen[content] += 1
        ids.append(f"{content}-{seen[content]}")
    filled = pc.replace_with_mask(table["id"].combine_chunks(), without, pa.array(ids, pa.string()))
    return table.set_column(table.schema.get_field_index("id"), "id", filled)


def without_duplicates(table: pa.Table, dataset: Dataset) -> pa.Table:
    ids = table["id"]
    if pc.count_distinct(ids).as_py() == len(table):
        return table
    first: dict[str, int] = {}
    kept, repeated = [], []
    for row, row_id in enumerate(ids.to_pylist()):
        if row_id not in first:
            first[row_id] = row
            kept.append(row)
        else:
            repeated.append(row)
    if dataset.settings.on_duplicate == "error":
        originals = [first[ids[row].as_py()] for row in repeated]
        losing = _holds_more(table.take(pa.array(repeated)), table.take(pa.array(originals)))
        worst = int(np.argmax(losing))
        places = [_name_row(table, dataset, r) for r in (originals[worst], repeated[worst])]
        told = f"id {ids[repeated[worst]].as_py()!r} stands twice: {places[0]} and {places[1]}"
        two = table.take(pa.array([originals[worst], repeated[worst]]))
        raise DuplicateIds(told, bool(losing.any()), _are_halves(two))
    logger.warning("%d rows with an id that stood before were left out", len(repeated))
    return table.take(pa.array(kept))


def _holds_more(rows: pa.Table, others: pa.Table) -> np.ndarray:
    """Which rows hold a half, or a value of other columns, that the other row at their place does not."""
    found = np.zeros(len(rows), bool)
    for name in ("image", "text", "extra"):
        same = pc.equal(rows[name], others[name]).fill_null(False)
        found |= np.asarray(pc.and_(pc.is_valid(rows[name]), pc.invert(same)))
    return found


def _are_halves(two: pa.Table) -> bool:
    """Whether one of two rows holds an image alone, and the other a text alone."""
    image, text = (pc.is_valid(two[half]).to_pylist() for half in ("image", "text"))
    return sorted(zip(image, text, strict=True)) == [(False, True), (True, False)]


def _name_row(table: pa.Table, dataset: Dataset, row: int) -> str:
    file, position = table["file"][row].as_py(), table["position"][row].as_py()
    return f"{dataset.files[file].name} row {position}"
