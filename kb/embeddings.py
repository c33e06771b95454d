"""Embeddings as arrays: modalities, normalisation, and float16 files that are read in chunks."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, ...] = ("image", "text")

# Below this a norm is noise: float16 cannot even hold its square.
SMALLEST_NORM = 1e-6
# Scattered rows read of a file before its pages are given back: of a mebibyte each at worst.
TAKEN = 256


class InvalidEmbedding(ValueError):
    """An embedding that cannot be a direction: non-finite, all zero, or of the wrong shape.

    Attributes
    ----------
    row : int or None
        The first such row; None where it is not about a row.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


class Rows(Protocol):
    """What the package reads embeddings from: an array, a memory map, or a `Stacked` of them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def opposite(modality: Modality) -> Modality:
    """The other modality of a pair; ValueError for a name that is none."""
    if modality not in MODALITIES:
        raise ValueError(f"modality must be one of {', '.join(MODALITIES)}; got {modality!r}")
    return "text" if modality == "image" else "image"


def normalise(
    embeddings: ArrayLike,
    first_row: int = 0,
    row_numbers: np.ndarray | None = None,
    copy: bool = True,
) -> np.ndarray:
    """Rows scaled to unit length.

    Parameters
    ----------
    embeddings : array_like, shape [n, d]
        Any real dtype.
    first_row : int
        Added to the row number in an error, for blocks of a larger array.
    row_numbers : int64 [n], optional
        What an error names rows by in place of that, for rows gathered from a larger array.
    copy : bool
        False: a float32 array may be scaled where it lies.

    Returns
    -------
    ndarray of float32, shape [n, d]
        Unit rows; a fresh array but for `copy`.

    Raises
    ------
    InvalidEmbedding
        A row is non-finite or all zero (the first such row is named), or the array is not 2-d.
    """
    rows = np.array(embeddings, dtype=np.float32, copy=copy or None)
    if rows.ndim != 2:
        raise InvalidEmbedding(f"embeddings must have shape [n, d]; got {rows.shape}")
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms >= SMALLEST_NORM)))
    if len(bad):
        place = int(bad[0])
        row = first_row + place if row_numbers is None else int(row_numbers[place])
        fault = "all zero" if np.isfinite(norms[place]) else "not finite"
        raise InvalidEmbedding(f"embedding in row {row} is {fault}", row)
    rows /= norms[:, None]
    return rows


def chunks(embeddings: Rows, rows: int = 16_384) -> Iterator[np.ndarray]:
    """Unit float32 blocks of at most `rows` rows, in order; memory is that of one block."""
    if rows < 1:
        raise ValueError(f"rows must be at least 1; got {rows}")
    for start in range(0, len(embeddings), rows):
        yield normalise(embeddings[start : start + rows], first_row=start)
        release(embeddings)


def release(embeddings: Rows) -> None:
    """Gives back the pages that were read of a memory map; the system's cache may keep them.

    Else a sweep over a file would count as the process's memory, up to the size of the file.
    """
    if isinstance(embeddings, Stacked):
        for array in embeddings.arrays:
            release(array)
    elif isinstance(embeddings, Subset):
        release(embeddings.embeddings)
    elif isinstance(embeddings, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped = embeddings.base
        while isinstance(mapped, np.ndarray):
            mapped = mapped.base
        if isinstance(mapped, mmap.mmap):
            mapped.madvise(mmap.MADV_DONTNEED)


def take(embeddings: Rows, rows: np.ndarray) -> np.ndarray:
    """The named rows as unit float32, shape [len(rows), d].

    A memory map is read in ascending order of rows, so that the disk is swept once, and its pages
    are given back on the way: each row brings up to a mebibyte around it into memory.
    """
    rows = np.asarray(rows)
    order = np.argsort(rows, kind="stable")
    out = np.empty((len(rows), embeddings.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), TAKEN):
        part = order[start : start + TAKEN]
        out[part] = embeddings[rows[part]]
        release(embeddings)
    return normalise(out, row_numbers=rows, copy=False)


def sample_rows(count: int, size: int, random_state: int) -> np.ndarray:
    """At most `size` of `count` row numbers, a seeded choice, ascending."""
    if count <= size:
        return np.arange(count)
    generator = np.random.default_rng(random_state)
    return np.sort(generator.choice(count, size, replace=False))


class Stacked:
    """Several arrays of the same width read as one, without copying them together.

    Supports `len`, `shape`, slices with step 1, and arrays of row numbers.
    """

    def __init__(self, arrays: Sequence[Rows]) -> None:
        if not arrays:
            raise ValueError("Stacked needs at least one array")
        widths = {array.shape[1] for array in arrays}
        if len(widths) > 1:
            raise ValueError(f"stacked embeddings must agree in dimension; got {sorted(widths)}")
        self.arrays = list(arrays)
        self.starts = np.concatenate([[0], np.cumsum([len(a) for a in arrays])]).astype(np.int64)
        self.shape = (int(self.starts[-1]), int(arrays[0].shape[1]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                raise ValueError(f"Stacked slices need step 1; got {step}")
            parts = []
            for array, first in zip(self.arrays, self.starts, strict=False):
                low, high = max(start - first, 0), min(stop - first, len(array))
                if low < high:
                    parts.append(np.asarray(array[low:high]))
            if not parts:
                return np.empty((0, self.shape[1]), dtype=np.float32)
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        rows = np.asarray(key)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        part = np.searchsorted(self.starts, rows, side="right") - 1
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        for number in np.unique(part):
            here = part == number
            out[here] = self.arrays[number][rows[here] - self.starts[number]]
        return out


class Subset:
    """Chosen rows of an array read as an array of their own, without copying them.

    Supports `len`, `shape`, slices with step 1, and arrays of row numbers.
    """

    def __init__(self, embeddings: Rows, rows: np.ndarray) -> None:
        self.embeddings = embeddings
        self.rows = np.asarray(rows, dtype=np.int64)
        self.shape = (len(self.rows), int(embeddings.shape[1]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self.embeddings[self.rows[key]])


class EmbeddingWriter:
    """Appends rows to a float16 .npy file that `numpy.load(mmap_mode="r")` reads.

    The file appears under its name only when it is whole: rows go to `path` + ".part", whose
    header is completed, flushed to disk and renamed on `close`. Leaving a `with` block through
    an error removes the part instead.

    Parameters
    ----------
    path : path of the .npy file
    dimension : int
        Width of every row.
    """

    def __init__(self, path: str | os.PathLike[str], dimension: int) -> None:
        if dimension < 1:
            raise ValueError(f"dimension must be at least 1; got {dimension}")
        self.path = Path(path)
        self.dimension = dimension
        self.rows = 0
        self._part = self.path.with_name(self.path.name + ".part")
        self._file = self._part.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        # numpy leaves room for the number of rows to grow: the header keeps its size.
        shape = (self.rows, self.dimension)
        described = {"descr": "<f2", "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, described)

    def append(self, embeddings: ArrayLike) -> None:
        """Adds unit rows, shape [n, dimension]; InvalidEmbedding names a bad row."""
        block = normalise(embeddings, first_row=self.rows)
        if block.shape[1] != self.dimension:
            raise InvalidEmbedding(
                f"embeddings must have dimension {self.dimension}; got {block.shape[1]}"
            )
        self._file.write(block.astype(np.float16).tobytes())
        self.rows += len(block)

    def copy(self, rows: np.ndarray) -> None:
        """Adds float16 rows of another such file bit for bit."""
        if rows.dtype != np.float16 or rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise InvalidEmbedding(
                f"rows to copy must be float16 [n, {self.dimension}]; got {rows.dtype} {rows.shape}"
            )
        self._file.write(np.ascontiguousarray(rows).tobytes())
        self.rows += len(rows)

    def close(self) -> None:
        """Completes the header, flushes to disk and gives the file its name; once is enough."""
        if self._file.closed:
            return
        self._file.seek(0)
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._part, self.path)

    def abort(self) -> None:
        """Drops what was written."""
        self._file.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def open_embeddings(path: str | os.PathLike[str]) -> np.ndarray:
    """A memory map of an embedding file, shape [n, d]; rows are read when they are used."""
    return cast(np.ndarray, np.load(path, mmap_mode="r", allow_pickle=False))
