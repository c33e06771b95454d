"""Several examples for a row that differ: maximal marginal relevance."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from kb.index.stored_rows import StoredRows, each_gathered
from kb.retrieval.ranking import foremost, ranked


def differing(
    base: StoredRows,
    rows: np.ndarray,
    score: np.ndarray,
    ids: pa.Array,
    m: int,
    weight: float,
) -> np.ndarray:
    """Of each query's candidates the m that score highest less what they repeat of one another.

    The first is the best by score; each one after it has the highest score less `weight` times the
    largest cosine of its other half to those chosen before it (Carbonell and Goldstein 1998).

    Parameters
    ----------
    base : shape [n_pairs, d]
        Unit embeddings of the modality that is sought; may be a memory map.
    rows : int64 [n, k]
        Rows of `base`; negative where there is none.
    score : float32 [n, k]
    ids : pyarrow string array
        By row: what is level goes by the lower one.
    m : int
    weight : float
        0: the m that score highest.

    Returns
    -------
    int64 [n, min(m, k)]
        Columns in the order of the choice.
    """
    if weight == 0 or m == 1 or rows.size == 0:
        return foremost(score, rows, ids, m)
    order = ranked(score, rows, ids)
    held = np.take_along_axis(rows, order, axis=1)
    relevance = np.where(held < 0, -np.inf, np.take_along_axis(score, order, axis=1))
    chosen = order[:, :m].copy()

    def choose(part: slice, vectors: np.ndarray) -> None:
        worth, queries = relevance[part].copy(), np.arange(len(relevance[part]))
        repeated = np.full(worth.shape, -np.inf, dtype=np.float32)
        best = np.zeros(len(worth), dtype=np.int64)
        for place in range(1, chosen.shape[1]):
            worth[queries, best] = -np.inf
            np.maximum(repeated, np.vecdot(vectors, vectors[queries, best][:, None]), out=repeated)
            marginal = worth - weight * repeated
            best = marginal.argmax(axis=1)
            # Where no candidate is left, none follows, and none stands there in the order either.
            left = np.isfinite(marginal[queries, best])
            chosen[part][left, place] = order[part][queries, best][left]

    each_gathered(base, held, choose)
    return chosen
