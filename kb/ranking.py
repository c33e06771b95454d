"""The order of what a retrieval found: by score, and by id where scores are level."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Neighbouring scores that differ by no more are level: products of equal rows differ in their last
# bits with the place in a block.
TOLERANCE = 1e-6


def ranked(score: np.ndarray, rows: np.ndarray, ids: pa.Array) -> np.ndarray:
    """Columns by descending score, per query; scores that are level go by ascending id.

    Level are scores in a row of which each lies within `TOLERANCE` of the next.

    Parameters
    ----------
    score, rows : shapes [n, k]
        Rows are negative, and scores -inf or NaN, where there is none.
    ids : pyarrow string array
        By row.

    Returns
    -------
    int64 [n, k]
    """
    order = np.argsort(-score, axis=1, kind="stable")
    ordered = np.take_along_axis(score, order, axis=1)
    with np.errstate(invalid="ignore"):
        level = ordered[:, :-1] - ordered[:, 1:] <= TOLERANCE
    tied = np.flatnonzero(level.any(axis=1))
    if len(tied):
        level = level[tied]
        # Ids are strings, slow to fetch and to compare: only those that matter.
        matters = np.zeros((len(tied), order.shape[1]), dtype=bool)
        matters[:, 1:] |= level
        matters[:, :-1] |= level
        found = ids.take(pa.array(np.take_along_axis(rows[tied], order[tied], 1)[matters]))
        ranks = np.zeros(matters.shape, dtype=np.int64)
        ranks[matters] = pc.rank(found, tiebreaker="dense").to_numpy()
        groups = np.zeros(matters.shape, dtype=np.int64)
        groups[:, 1:] = np.cumsum(~level, axis=1)
        settled = np.lexsort((ranks, groups), axis=1)
        order[tied] = np.take_along_axis(order[tied], settled, axis=1)
    return order
