"""Exact nearest neighbours by inner product, over all rows, on the CPU or a GPU."""

from __future__ import annotations

import numpy as np

from kb.device import MOST_SELECTED, faiss_gpu, faiss_resources
from kb.embeddings import Rows, chunks, normalise


def top_k(
    queries: np.ndarray, base: np.ndarray, k: int, *, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `base` with the largest inner product to each query, by faiss.

    No matrix of all similarities is formed.

    Parameters
    ----------
    queries, base : float32, shapes [n, d] and [m, d]
    k : int
        Clamped to m.
    device : str
        A torch device.

    Returns
    -------
    similarities : float32 [n, k], descending
    rows : int64 [n, k]
    """
    k = min(k, len(base))
    if k == 0 or len(queries) == 0:
        return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    import faiss

    queries = np.ascontiguousarray(queries, dtype=np.float32)
    base = np.ascontiguousarray(base, dtype=np.float32)
    number = faiss_gpu(device)
    if number is None or k > MOST_SELECTED:
        return faiss.knn(queries, base, k, metric=faiss.METRIC_INNER_PRODUCT)
    return faiss.knn_gpu(
        faiss_resources(), queries, base, k, metric=faiss.METRIC_INNER_PRODUCT, device=number
    )


def exact_search(
    queries: np.ndarray, embeddings: Rows, k: int, device: str = "cpu", chunk: int = 65_536
) -> tuple[np.ndarray, np.ndarray]:
    """Exact top k over embeddings read in chunks, for measuring an index's recall.

    Returns
    -------
    similarities : float32 [n, k], descending
    rows : int64 [n, k]
    """
    queries = normalise(queries)
    best = np.full((len(queries), 0), -np.inf, dtype=np.float32)
    rows = np.zeros((len(queries), 0), dtype=np.int64)
    first = 0
    for block in chunks(embeddings, chunk):
        similarities, found = top_k(queries, block, k, device=device)
        best = np.concatenate([best, similarities], axis=1)
        rows = np.concatenate([rows, found + first], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(best, order, axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
        first += len(block)
    return best, rows


def first_occurrence(rows: np.ndarray) -> np.ndarray:
    """For each row the lowest row that holds exactly the same values, int64 [n].

    Equal captions give equal embeddings; products of equal rows may still differ in the last
    bit with their place in a block, so such ties are settled here and not by rounding.
    """
    packed = np.ascontiguousarray(rows)
    if len(packed) == 0:
        return np.empty(0, dtype=np.int64)
    keys = packed.view(np.dtype((np.void, packed.dtype.itemsize * packed.shape[1]))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse.ravel()].astype(np.int64)
