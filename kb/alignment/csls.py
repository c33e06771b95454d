"""Cross-domain similarity local scaling, and the pairs of rows that it makes mutual neighbours.

CSLS(x, y) = 2 cos(x, y) - r(x) - r(y), r being the mean of the k largest cosines to the other
side (Conneau et al. 2018, "Word Translation Without Parallel Data", equation 7).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kb.device import exact_products
from kb.index.neighbours import first_occurrence, top_k

# Similarities held at once, as float32: 64 MiB on the CPU, where a block should stay near the
# caches, and 1 GiB on a GPU.
_BLOCK = {"cpu": 16 * 1024 * 1024, "cuda": 256 * 1024 * 1024}


def csls(a: np.ndarray, b: np.ndarray, k: int = 10) -> np.ndarray:
    """CSLS of every row of `a` with every row of `b`.

    Parameters
    ----------
    a, b : unit rows, shapes [n, d] and [m, d]
    k : int
        Clamped to the size of the other side.

    Returns
    -------
    float32 [n, m]
        The whole matrix: for small sides; `mutual_neighbours` does not build it.
    """
    a, b = _same_width(a, b)
    scores = 2 * (a @ b.T)
    scores -= hubness(a, b, k)[:, None]
    scores -= hubness(b, a, k)[None, :]
    return scores


def hubness(a: np.ndarray, b: np.ndarray, k: int = 10, *, device: str = "cpu") -> np.ndarray:
    """r of CSLS: for each row of `a` the mean of its k largest cosines to `b`, float32 [n]."""
    similarities, _ = top_k(a, b, k, device=device)
    return similarities.mean(axis=1, dtype=np.float64).astype(np.float32)


def mutual_neighbours(
    a: np.ndarray, b: np.ndarray, k: int = 10, *, chunk: int = 16_384, device: str = "cpu"
) -> np.ndarray:
    """Pairs of rows that are each other's nearest neighbour under CSLS.

    The products are formed twice, once for r of both sides and once for the nearest rows: they
    are cheaper made again than kept, and the second pass is exact whatever the hubs.

    Parameters
    ----------
    a, b : unit rows, shapes [n, d] and [m, d]
    k : int
        Neighbours in CSLS's local scaling.
    chunk : int
        Rows handled at once; the pairs do not depend on it but for ties within 1e-6.
    device : str
        "cpu", or a torch device for the products.

    Returns
    -------
    int64 [p, 2]
        (row of a, row of b), by ascending row of a; ties go to the lower row.
    """
    a, b = _same_width(a, b)
    if len(a) == 0 or len(b) == 0:
        return np.empty((0, 2), dtype=np.int64)
    import torch

    held_a = torch.as_tensor(np.ascontiguousarray(a), device=device)
    held_b = torch.as_tensor(np.ascontiguousarray(b), device=device)
    step = _block_rows(len(b), chunk, held_b.device.type)
    with exact_products():
        scaling_a, scaling_b = _scalings(held_a, held_b, k, step)
        forward, backward = _nearest(held_a, held_b, scaling_a, scaling_b, step)
    # Equal rows tie, and are settled here and not by rounding.
    forward = first_occurrence(b)[forward]
    backward = first_occurrence(a)[backward]
    rows = np.arange(len(a), dtype=np.int64)
    mutual = backward[forward] == rows
    return np.stack([rows[mutual], forward[mutual]], axis=1)


def _scalings(a: Any, b: Any, k: int, step: int) -> tuple[Any, Any]:
    """r of every row of a and of b, float32 tensors [n] and [m], from one pass."""
    import torch

    of_a = torch.empty(len(a), device=a.device)
    best = torch.empty((len(b), 0), device=b.device)
    for start in range(0, len(a), step):
        products = a[start : start + step] @ b.T
        largest = torch.topk(products, min(k, len(b)), dim=1).values
        of_a[start : start + step] = largest.mean(dim=1, dtype=torch.float64)
        turned = products.T.contiguous()
        largest = torch.topk(turned, min(k, turned.shape[1]), dim=1).values
        best = torch.cat([best, largest], dim=1)
        best = torch.topk(best, min(k, best.shape[1]), dim=1).values
    return of_a, best.mean(dim=1, dtype=torch.float64).float()


def _nearest(
    a: Any, b: Any, scaling_a: Any, scaling_b: Any, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Row of b nearest to each row of a, int64 [n], and row of a nearest to each of b, [m].

    The scaling of the row itself is the same for all others, and left out.
    """
    import torch

    forward = torch.empty(len(a), dtype=torch.int64, device=a.device)
    backward = torch.zeros(len(b), dtype=torch.int64, device=b.device)
    best = torch.full((len(b),), -torch.inf, device=b.device)
    for start in range(0, len(a), step):
        part = slice(start, start + step)
        products = (2 * a[part]) @ b.T
        forward[part] = (products - scaling_b).argmax(dim=1)
        values, rows = products.sub_(scaling_a[part, None]).max(dim=0)
        # An equal score of a later block is of a higher row.
        better = values > best
        best = torch.where(better, values, best)
        backward = torch.where(better, rows + start, backward)
    return forward.cpu().numpy(), backward.cpu().numpy()


def _block_rows(base: int, chunk: int, device_type: str) -> int:
    """Rows whose similarities to `base` rows fit in one block; at most `chunk`, at least 1."""
    return max(1, min(chunk, _BLOCK["cpu" if device_type == "cpu" else "cuda"] // base))


def _same_width(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"a and b must be [n, d] and [m, d]; got {a.shape} and {b.shape}")
    return np.asarray(a, np.float32), np.asarray(b, np.float32)
