"""Embeddings that outlive a run: what was encoded once by an encoder is never encoded again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from kb.embeddings import Modality, Subset, normalise

logger = logging.getLogger(__name__)

# Keys that are held beside the sorted ones, so that not every write sorts all of them again; later
# as many as are sorted.
_RECENT = 65_536

_KEY = np.dtype([("lookup", "<u8"), ("check", "<u8")])


def content_key(content: bytes | str) -> str:
    """Key of an item by its content: the bytes of a picture's file, or a text."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class EmbeddingCache:
    """An append-only store of one encoder's embeddings of one modality, by key.

    Rows and keys lie in two flat files that only grow. Any number of processes of a machine may
    read and add: each writes alone, under a lock that goes with it however it ends, and cuts off
    first what a killed one wrote in part.

    Parameters
    ----------
    folder : path
        The store of all encoders; each gets a folder of its own.
    fingerprint : str
        What identifies the encoder: its settings and the bytes of its files.
    modality : Modality
    dimension : int, optional
        By default that of what is held, for whoever only reads; 0 where nothing is.

    Raises
    ------
    ValueError
        Embeddings of another dimension are held.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        fingerprint: str,
        modality: Modality,
        dimension: int | None = None,
    ) -> None:
        self.folder = Path(folder) / fingerprint / modality
        self._rows_path = self.folder / "rows.f16"
        self._keys_path = self.folder / "keys.bin"
        self.dimension = dimension or 0
        described = self.folder / "cache.json"
        if dimension is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if not described.exists():
                    part = described.with_suffix(".part")
                    told = {"dimension": dimension, "dtype": "float16"}
                    part.write_text(json.dumps(told) + "\n")
                    os.replace(part, described)
        if described.exists():
            self.dimension = json.loads(described.read_text())["dimension"]
        if dimension not in (None, self.dimension):
            raise ValueError(
                f"{self.folder}: holds embeddings of dimension {self.dimension}; got {dimension}"
            )
        self._read()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait for the lock of those who write, and hold it."""
        with self._keys_path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _entries(self) -> int:
        """Whole entries on disk; a key that another process is about to write is not one yet."""
        if not self.dimension:
            return 0
        keys = _size(self._keys_path) // _KEY.itemsize
        return min(keys, _size(self._rows_path) // (2 * self.dimension))

    def _cut_off_partial_write(self) -> None:
        whole = self._entries()
        for path, width in (
            (self._rows_path, 2 * self.dimension),
            (self._keys_path, _KEY.itemsize),
        ):
            if _size(path) != whole * width:
                logger.warning("%s: cut back to its %d whole entries", path, whole)
                os.truncate(path, whole * width)

    def _read(self) -> None:
        self._count = self._entries()
        keys = (
            np.fromfile(self._keys_path, dtype=_KEY, count=self._count)
            if self._count
            else np.empty(0, _KEY)
        )
        self._recent: dict[str, int] = {}
        self._order = np.argsort(keys["lookup"], kind="stable")
        self._lookup = keys["lookup"][self._order]
        self._check = keys["check"][self._order]

    def __len__(self) -> int:
        return self._count

    def find(self, keys: Sequence[str]) -> np.ndarray:
        """Row of each key (32 hexadecimal digits), int64 [n]; -1 where it is not held."""
        if not len(keys):
            return np.empty(0, dtype=np.int64)
        packed = np.frombuffer(bytes.fromhex("".join(keys)), dtype=_KEY)
        if len(packed) != len(keys):
            raise ValueError("keys must have 32 hexadecimal digits each")
        rows = np.full(len(keys), -1, dtype=np.int64)
        if len(self._order):
            place = np.searchsorted(self._lookup, packed["lookup"]).clip(max=len(self._order) - 1)
            held = self._lookup[place] == packed["lookup"]
            held &= self._check[place] == packed["check"]
            rows = np.where(held, self._order[place], -1)
        if self._recent:
            for number in np.flatnonzero(rows < 0).tolist():
                rows[number] = self._recent.get(keys[number], -1)
        return rows

    def add(self, keys: Sequence[str], embeddings: np.ndarray) -> None:
        """Appends rows, shape [n, dimension]; those that came to be held meanwhile stay as they are.

        On disk when it returns.
        """
        if len(keys) != len(embeddings):
            raise ValueError(f"got {len(keys)} keys for {len(embeddings)} embeddings")
        if not len(keys):
            return
        rows = normalise(embeddings)
        if rows.shape[1] != self.dimension:
            raise ValueError(f"embeddings must have dimension {self.dimension}; got {rows.shape}")
        with self._alone():
            self._cut_off_partial_write()
            if self._entries() != self._count:
                self._read()
            new = np.flatnonzero(self.find(keys) < 0).tolist()
            # Rows before keys: a key on disk always has its row.
            for path, data in (
                (self._rows_path, rows[new].astype("<f2").tobytes()),
                (self._keys_path, bytes.fromhex("".join(keys[row] for row in new))),
            ):
                with path.open("ab") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            for row in new:
                self._recent[keys[row]] = self._count
                self._count += 1
        if len(self._recent) > max(_RECENT, len(self._order)):
            self._read()

    def rows(self, positions: np.ndarray) -> Subset:
        """The rows at `positions`, read when they are used (a view of the file)."""
        if not self._count:
            return Subset(np.empty((0, self.dimension), np.float16), positions)
        shape = (self._count, self.dimension)
        return Subset(np.memmap(self._rows_path, dtype="<f2", mode="r", shape=shape), positions)

    def encode(
        self,
        keys: Sequence[str],
        items: Callable[[Sequence[int]], Iterable[tuple[int, Any]]],
        encode: Callable[[Iterable[Any]], np.ndarray],
        block: int = 1024,
        progress: Callable[[int, int], None] | None = None,
        of_an_item: Callable[[Exception], bool] = lambda error: False,
    ) -> np.ndarray:
        """Have items by key; only those that are not held are read and encoded.

        After an error of a block its items are read again and encoded one by one; those that have
        the error are left out.

        Parameters
        ----------
        keys : sequence of n keys
            `content_key` of each item, or another; equal ones are encoded once.
        items : callable
            `items(numbers)` gives the number and the item of those of these (ascending) that can
            be had, in this order. Read as the encoder asks for them: none is held here.
        encode : callable
            Items to their embeddings [m, dimension]. Not called where all keys are held.
        block : int
            Items between two writes: what a killed run loses at most.
        progress : callable, optional
            Called after each block with the number of items that are done, and of all that were
            not held.
        of_an_item : callable, optional
            Whether an error of `encode` comes of an item; by default none does, and it is raised.

        Returns
        -------
        int64 [n]
            Row of each key, for `rows`; -1 for items that could not be had, or encoded.
        """
        missing: dict[str, int] = {}
        for number in np.flatnonzero(self.find(keys) < 0).tolist():
            missing.setdefault(keys[number], number)
        wanted = list(missing.values())
        source = iter(items(wanted)) if wanted else iter(())
        for first in source:
            had: list[int] = []
            try:
                embeddings = encode(_noting(chain([first], islice(source, block - 1)), had))
            except _Unread as error:
                raise (error.__cause__ or error) from None
            except Exception as error:
                # One that came before any item was asked for is none's.
                if not had or not of_an_item(error):
                    raise
                self._encode_each(keys, items(had), encode, of_an_item)
            else:
                self.add([keys[number] for number in had], embeddings)
            if progress is not None:
                progress(int(np.searchsorted(wanted, had[-1])) + 1, len(wanted))
        return self.find(keys)

    def _encode_each(
        self,
        keys: Sequence[str],
        items: Iterable[tuple[int, Any]],
        encode: Callable[[Iterable[Any]], np.ndarray],
        of_an_item: Callable[[Exception], bool],
    ) -> None:
        """Encode items one by one, and leave out those that can't be."""
        for number, item in items:
            try:
                embedding = encode(iter([item]))
            except Exception as error:
                if not of_an_item(error):
                    raise
                # As it is shown in code: a class of its own may not be able to say anything.
                logger.warning("an item can't be encoded, and is left out: %r", error)
            else:
                self.add([keys[number]], embedding)


class _Unread(Exception):
    """Items could not be read; the cause is why. No fault of the encoder's."""


def _noting(items: Iterable[tuple[int, Any]], numbers: list[int]) -> Iterator[Any]:
    """The items, their numbers noted on the way."""
    source = iter(items)
    while True:
        try:
            number, item = next(source)
        except StopIteration:
            return
        except Exception as error:
            raise _Unread from error
        numbers.append(number)
        yield item


def _size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
