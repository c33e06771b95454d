"""Exact nearest neighbours by inner product, in blocks, on the CPU or a GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import numpy as np

from kb.embeddings import Rows, chunks, normalise

logger = logging.getLogger(__name__)

# Similarities held at once, as float32: 64 MiB on the CPU, where a block should stay near the
# caches, and 1 GiB on a GPU.
_BLOCK = {"cpu": 16 * 1024 * 1024, "cuda": 256 * 1024 * 1024}
# Rows gathered at once: few enough to stay near the caches, enough to be worth a call.
_GATHERED = 1024
# Numbers converted at once: torch brings threads of its own to more, beside the readers.
_CONVERTED = 32 * 1024
# Reading scattered rows waits for the memory or the disk, which two at once hide from each other.
_READERS = 2


def resolve_device(device: str) -> str:
    """The torch device that a setting stands for.

    `auto` becomes "cuda" where torch sees a GPU, else "cpu". So does the name of a GPU where there
    is none, with a warning: what was built beside a GPU is of use without. Others pass through.
    """
    if device != "auto" and not device.startswith("cuda"):
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda" if device == "auto" else device
    if device != "auto":
        _warn_of_no_gpu(device)
    return "cpu"


@cache
def _warn_of_no_gpu(device: str) -> None:
    logger.warning("device is %s, but torch sees no GPU: the CPU is used", device)


def block_rows(base: int, chunk: int, device_type: str) -> int:
    """Queries whose similarities to `base` rows fit in one block; at most `chunk`, at least 1."""
    return max(1, min(chunk, _BLOCK["cpu" if device_type == "cpu" else "cuda"] // base))


@contextmanager
def exact_products() -> Iterator[None]:
    """Full float32 products: TF32 would move similarities by 1e-3, and the neighbours with them."""
    import torch

    products = torch.backends.cuda.matmul
    # torch refuses the older name once somebody has used the newer one.
    newer = hasattr(products, "fp32_precision")
    name, exact = ("fp32_precision", "ieee") if newer else ("allow_tf32", False)
    before = getattr(products, name)
    setattr(products, name, exact)
    try:
        with torch.inference_mode():
            yield
    finally:
        setattr(products, name, before)


def top_k(
    queries: np.ndarray,
    base: np.ndarray,
    k: int,
    *,
    chunk: int = 16_384,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `base` with the largest inner product to each query.

    Memory: one block of at most chunk x m similarities, and less where m is large.

    Parameters
    ----------
    queries, base : float32, shapes [n, d] and [m, d]
    k : int
        Clamped to m.
    chunk : int
        Queries handled at once at most; the result does not depend on it but for rounding.
    device : str
        A torch device.

    Returns
    -------
    similarities : float32 [n, k], descending
    rows : int64 [n, k]
    """
    import torch

    k = min(k, len(base))
    similarities = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    if k == 0 or len(queries) == 0:
        return similarities, rows
    held = torch.as_tensor(np.ascontiguousarray(base, dtype=np.float32), device=device)
    step = block_rows(len(base), chunk, held.device.type)
    with exact_products():
        for start in range(0, len(queries), step):
            block = torch.as_tensor(
                np.ascontiguousarray(queries[start : start + step], dtype=np.float32),
                device=device,
            )
            products = block @ held.T
            if k == 1:
                values, indices = products.max(dim=1, keepdim=True)
            else:
                values, indices = torch.topk(products, k, dim=1)
            part = slice(start, start + len(block))
            similarities[part] = values.cpu().numpy()
            rows[part] = indices.cpu().numpy()
    return similarities, rows


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


def inner_products(queries: np.ndarray, base: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Inner products of each query with rows of its own, read where they lie.

    Memory: some thousand rows, whatever the number of queries.

    Parameters
    ----------
    queries : float32 [n, d]
    base : shape [m, d]
        Of any float type; may be a memory map.
    rows : int64 [n, k]
        Rows of `base`; negative where there is none.

    Returns
    -------
    float32 [n, k], -inf where there is no row
    """
    import torch

    count, width = rows.shape
    products = np.empty(rows.shape, dtype=np.float32)
    if rows.size == 0:
        return products
    step = max(1, _GATHERED // width)
    vectors = np.ascontiguousarray(queries, dtype=np.float32)

    def fill(first: int, last: int) -> None:
        gathered = np.empty((min(step, last - first) * width, base.shape[1]), base.dtype)
        block = np.empty(gathered.shape, np.float32)
        # torch converts half precision ten times as fast as numpy.
        halves = torch.from_numpy(gathered).view(-1).split(_CONVERTED)
        pieces = list(zip(torch.from_numpy(block).view(-1).split(_CONVERTED), halves, strict=True))
        for start in range(first, last, step):
            part = slice(start, min(start + step, last))
            size = part.stop - start
            # `clip` lets numpy write to `out` at once, and reads row 0 where there is none.
            base.take(rows[part].ravel(), axis=0, out=gathered[: size * width], mode="clip")
            for converted, piece in pieces:
                converted.copy_(piece)
            # Products of matrices with one column take fifteen times as long.
            found = block[: size * width].reshape(size, width, -1)
            np.vecdot(found, vectors[part, None], out=products[part])

    readers = min(_READERS, torch.get_num_threads(), -(-count // step))
    edges = [count * number // readers for number in range(readers + 1)]
    if readers == 1:
        fill(0, count)
    else:
        with ThreadPoolExecutor(readers) as pool:
            list(pool.map(fill, edges[:-1], edges[1:]))
    return np.where(rows < 0, np.float32(-np.inf), products)


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
