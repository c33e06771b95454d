"""Stored embeddings read by their row numbers: compared with queries where they lie."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

# Rows gathered at once: few enough to stay near the caches, enough to be worth a call.
_GATHERED = 1024
# Numbers converted at once: torch brings threads of its own to more, beside the readers.
_CONVERTED = 32 * 1024
# Of a map of so many bytes one row brings all into memory, so that nothing is saved by calls.
_WHOLE = 1 << 20
# Reading scattered rows waits for the memory or the disk, which two at once hide from each other.
_READERS = 2


class ScatteredRows:
    """Rows of a memory-mapped file, read by position where they are asked for.

    A row read through the map brings up to a mebibyte around it into the process's memory, so
    that some thousand rows bring the whole file. Reading it from the file brings the row alone,
    and costs a call of the system each.

    Parameters
    ----------
    mapped : memmap [n, d]
        In C order.
    """

    def __init__(self, mapped: np.memmap[Any, Any]) -> None:
        self.shape = mapped.shape
        self.dtype = mapped.dtype
        self._offset = int(mapped.offset)
        self._width = int(mapped.strides[0])
        self._file = os.open(str(mapped.filename), os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return int(self.shape[0])

    def take(
        self, rows: np.ndarray, axis: int = 0, *, out: np.ndarray, mode: str = "clip"
    ) -> np.ndarray:
        """`numpy.take` along the first axis in mode `clip`, into `out` [k, d].

        Raises
        ------
        OSError
            The file is shorter than its map was.
        """
        assert axis == 0 and mode == "clip"
        for place, row in zip(out, rows.clip(0, len(self) - 1).tolist(), strict=True):
            if os.preadv(self._file, [place], self._offset + row * self._width) != place.nbytes:
                raise OSError(f"row {row} of {len(self)} is cut short in its file")
        return out


StoredRows = np.ndarray | ScatteredRows


def scattered(embeddings: StoredRows) -> StoredRows:
    """Embeddings for `inner_products`: read by position where they are a whole file, and no small one."""
    # A part of a map carries the offset of the whole.
    if (
        isinstance(embeddings, np.memmap)
        and isinstance(embeddings.base, mmap.mmap)
        and embeddings.flags.c_contiguous
        and embeddings.nbytes > _WHOLE
        and hasattr(os, "preadv")
    ):
        return ScatteredRows(embeddings)
    return embeddings


def inner_products(queries: np.ndarray, base: StoredRows, rows: np.ndarray) -> np.ndarray:
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
    products = np.empty(rows.shape, dtype=np.float32)
    vectors = np.ascontiguousarray(queries, dtype=np.float32)

    def multiply(part: slice, found: np.ndarray) -> None:
        # Products of matrices with one column take fifteen times as long.
        np.vecdot(found, vectors[part, None], out=products[part])

    each_gathered(base, rows, multiply)
    return np.where(rows < 0, np.float32(-np.inf), products)


def each_gathered(
    base: StoredRows, rows: np.ndarray, visit: Callable[[slice, np.ndarray], None]
) -> None:
    """Calls `visit` with a few queries at a time and their rows, in a thread or two.

    Parameters
    ----------
    base : shape [m, d]
        Of any float type; may be a memory map.
    rows : int64 [n, k]
        Rows of `base`; where one is negative, row 0 is read.
    visit : callable
        Takes a slice of the queries and their rows as float32 [size, k, d], which are overwritten
        after it returns.
    """
    import torch

    count, width = rows.shape
    if rows.size == 0:
        return
    step = max(1, _GATHERED // width)

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
            visit(part, block[: size * width].reshape(size, width, -1))

    readers = min(_READERS, torch.get_num_threads(), -(-count // step))
    edges = [count * number // readers for number in range(readers + 1)]
    if readers == 1:
        fill(0, count)
    else:
        with ThreadPoolExecutor(readers) as pool:
            list(pool.map(fill, edges[:-1], edges[1:]))
