"""Consensus: how like a candidate is to the other candidates of its query."""

from __future__ import annotations

import numpy as np

from kb.index.stored_rows import StoredRows, each_gathered

# Of the scores, within which candidates count alike: exp((s - s_best) / TEMPERATURE).
TEMPERATURE = 0.05


def consensus(base: StoredRows, rows: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Cosine of each candidate's other half to the weighted mean of its fellow candidates'.

    The weight of a candidate is exp((s - s_best) / 0.05), s being its score. Where the query's
    neighbours agree on what belongs to it, an example in their midst is safer than one that is
    like nobody else (as in minimum Bayes risk decoding, Kumar and Byrne 2004).

    Parameters
    ----------
    base : shape [m, d]
        Unit embeddings of the modality that is sought; may be a memory map.
    rows : int64 [n, k]
        Rows of `base`; negative where there is none.
    score : float32 [n, k]

    Returns
    -------
    float32 [n, k]; 0 where there is no row, or no fellow
    """
    found = np.zeros(rows.shape, dtype=np.float32)
    if rows.size == 0:
        return found
    there = rows >= 0
    best = np.where(there, score, -np.inf).max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        weight = np.where(there, np.exp((score - best) / TEMPERATURE), 0).astype(np.float32)

    def compare(part: slice, vectors: np.ndarray) -> None:
        own = weight[part]
        total = np.einsum("nk,nkd->nd", own, vectors)
        product = np.vecdot(vectors, total[:, None])
        # The candidate itself leaves the mean, its own vector being of length 1.
        without = product - own
        length = np.vecdot(total, total)[:, None] - 2 * own * product + own**2
        fellows = length > 1e-6
        np.divide(without, np.sqrt(length.clip(1e-12)), out=found[part], where=fellows)

    each_gathered(base, rows, compare)
    return np.where(there, found, np.float32(0))
