"""What a retrieval finds, one by one or as arrays, and its order: by score, then by id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Beyond those wanted, so many are ordered in case the last of them are level.
SPARE = 8
# Neighbouring scores that differ by no more are level: products of equal rows differ in their last
# bits with the place in a block.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Hit:
    """A retrieved pair.

    Attributes
    ----------
    id : str
    row : int
        Its row in the knowledge base at hand; not to be stored.
    intra : float
        Cosine of the query to the pair's half in the query's own modality.
    cross : float
        Cosine to the pair's other half: of the pseudo-embedding, or in mode `cross` with a
        shared space of the query itself. NaN where there is no mapping.
    score : float
        What the order is by.
    """

    id: str
    row: int
    intra: float
    cross: float
    score: float


@dataclass(frozen=True)
class Neighbours:
    """Hits as arrays, all [n, m], best first; row is -1 and figures NaN where there is none."""

    rows: np.ndarray
    intra: np.ndarray
    cross: np.ndarray
    score: np.ndarray

    def hits(self, ids: pa.Array) -> list[list[Hit]]:
        """As records, best first: those that are there; `ids` are of all rows."""
        return [
            [
                Hit(ids[int(row)].as_py(), int(row), float(a), float(b), float(c))
                for row, a, b, c in zip(*figures, strict=True)
                if row >= 0
            ]
            for figures in zip(self.rows, self.intra, self.cross, self.score, strict=True)
        ]


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


def foremost(score: np.ndarray, rows: np.ndarray, ids: pa.Array, m: int) -> np.ndarray:
    """The first m columns of `ranked`, int64 [n, min(m, k)], without ordering all that follow."""
    few = m + SPARE
    if 2 * few >= score.shape[1]:
        return ranked(score, rows, ids)[:, :m]
    part = np.argpartition(-score, few - 1, axis=1)[:, :few]
    # As they stood: what is level and has one id stays in its order.
    part.sort(axis=1)
    best = np.take_along_axis(score, part, axis=1)
    order = ranked(best, np.take_along_axis(rows, part, axis=1), ids)[:, :m]
    found = np.take_along_axis(part, order, axis=1)
    best = -np.sort(-best, axis=1)
    with np.errstate(invalid="ignore"):
        level = best[:, m - 1 : -1] - best[:, m:] <= TOLERANCE
    # All that were ordered are level with the last one wanted, so that others may be as well.
    unsure = np.flatnonzero(level.all(axis=1))
    if len(unsure):
        found[unsure] = ranked(score[unsure], rows[unsure], ids)[:, :m]
    return found
