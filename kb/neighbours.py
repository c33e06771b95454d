"""Exact nearest neighbours by inner product, in blocks, on the CPU or a GPU."""

from __future__ import annotations

import numpy as np

# Similarities held at once, as float32: 64 MiB on the CPU, where a block should stay near the
# caches, and 1 GiB on a GPU.
_BLOCK = {"cpu": 16 * 1024 * 1024, "cuda": 256 * 1024 * 1024}


def resolve_device(device: str) -> str:
    """`auto` becomes "cuda" where torch sees a GPU, else "cpu"; other names pass through."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


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
    block_size = _BLOCK["cpu" if held.device.type == "cpu" else "cuda"]
    step = max(1, min(chunk, block_size // len(base)))
    # TF32 would move similarities by 1e-3, and with them the choice of neighbours.
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.inference_mode():
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
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
    return similarities, rows


def top_k_both(
    a: np.ndarray, b: np.ndarray, k: int, *, chunk: int = 16_384, device: str = "cpu"
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """`top_k` of a in b and of b in a, from one pass over the products.

    Memory: one block of products, and the best so far of every row of b.

    Parameters
    ----------
    a, b : float32, shapes [n, d] and [m, d]
    k : int
        Clamped to the size of the side searched.
    chunk : int
        Rows of a handled at once at most.
    device : str
        A torch device.

    Returns
    -------
    forward : (float32 [n, k], int64 [n, k])
        Similarities, descending, and rows of b.
    backward : (float32 [m, k], int64 [m, k])
        The same for b, with rows of a.
    """
    import torch

    held_a = torch.as_tensor(np.ascontiguousarray(a, dtype=np.float32), device=device)
    held_b = torch.as_tensor(np.ascontiguousarray(b, dtype=np.float32), device=device)
    forward_k, backward_k = min(k, len(b)), min(k, len(a))
    values = np.empty((len(a), forward_k), dtype=np.float32)
    rows = np.empty((len(a), forward_k), dtype=np.int64)
    best = torch.empty((len(b), 0), device=held_b.device)
    best_rows = torch.empty((len(b), 0), dtype=torch.int64, device=held_b.device)
    step = max(1, min(chunk, _BLOCK["cpu" if held_b.device.type == "cpu" else "cuda"] // len(b)))
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.inference_mode():
            for start in range(0, len(a), step):
                products = held_a[start : start + step] @ held_b.T
                top = torch.topk(products, forward_k, dim=1)
                part = slice(start, start + len(products))
                values[part], rows[part] = top.values.cpu().numpy(), top.indices.cpu().numpy()
                turned = products.T.contiguous()
                top = torch.topk(turned, min(backward_k, turned.shape[1]), dim=1)
                best = torch.cat([best, top.values], dim=1)
                best_rows = torch.cat([best_rows, top.indices + start], dim=1)
                if best.shape[1] > backward_k:
                    merged = torch.topk(best, backward_k, dim=1)
                    best = merged.values
                    best_rows = best_rows.gather(1, merged.indices)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
    order = best.argsort(dim=1, descending=True)
    backward = best.gather(1, order).cpu().numpy(), best_rows.gather(1, order).cpu().numpy()
    return (values, rows), backward


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
