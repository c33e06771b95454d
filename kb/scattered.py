"""Scattered rows of a large file, read by their place: its pages stay out of the process."""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Any, cast

import numpy as np


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


def scattered(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings for `kb.neighbours.inner_products`: by position where they are a whole file."""
    # A part of a map carries the offset of the whole.
    if (
        isinstance(embeddings, np.memmap)
        and isinstance(embeddings.base, mmap.mmap)
        and embeddings.flags.c_contiguous
        and hasattr(os, "preadv")
    ):
        return cast(np.ndarray, ScatteredRows(embeddings))
    return embeddings
