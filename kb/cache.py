"""Embeddings that outlive a run: what was encoded once by an encoder is never encoded again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kb.embeddings import Modality, Subset, normalise
from kb.encoders.base import Encoder

logger = logging.getLogger(__name__)

_KEY = np.dtype([("lookup", "<u8"), ("check", "<u8")])


def content_key(content: bytes | str) -> str:
    """Key of an item by its content: the bytes of a picture's file, or a text."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class EmbeddingCache:
    """An append-only store of one encoder's embeddings of one modality, by key.

    Rows and keys lie in two flat files that only grow. What a killed run wrote in part is cut
    off at the next opening. One process may write at a time.

    Parameters
    ----------
    folder : path
        The store of all encoders; each gets a folder of its own.
    fingerprint : str
        What identifies the encoder: its settings and the bytes of its files.
    modality : Modality
    dimension : int
    """

    def __init__(
        self, folder: str | os.PathLike[str], fingerprint: str, modality: Modality, dimension: int
    ) -> None:
        self.folder = Path(folder) / fingerprint / modality
        self.modality = modality
        self.dimension = dimension
        self.folder.mkdir(parents=True, exist_ok=True)
        described = self.folder / "cache.json"
        if described.exists():
            known = json.loads(described.read_text())["dimension"]
            if known != dimension:
                raise ValueError(
                    f"{self.folder}: holds embeddings of dimension {known}; got {dimension}"
                )
        else:
            described.write_text(json.dumps({"dimension": dimension, "dtype": "float16"}) + "\n")
        self._rows_path = self.folder / "rows.f16"
        self._keys_path = self.folder / "keys.bin"
        self._cut_off_partial_write()
        self._read()

    def _cut_off_partial_write(self) -> None:
        sizes = []
        for path, width in (
            (self._rows_path, 2 * self.dimension),
            (self._keys_path, _KEY.itemsize),
        ):
            path.touch()
            sizes.append(path.stat().st_size // width)
        whole = min(sizes)
        for path, width in (
            (self._rows_path, 2 * self.dimension),
            (self._keys_path, _KEY.itemsize),
        ):
            if path.stat().st_size != whole * width:
                logger.warning("%s: cut back to its %d whole entries", path, whole)
                os.truncate(path, whole * width)

    def _read(self) -> None:
        keys = np.fromfile(self._keys_path, dtype=_KEY)
        self._order = np.argsort(keys["lookup"], kind="stable")
        self._lookup = keys["lookup"][self._order]
        self._check = keys["check"][self._order]
        self._count = len(keys)

    def __len__(self) -> int:
        return self._count

    def find(self, keys: Sequence[str]) -> np.ndarray:
        """Row of each key (32 hexadecimal digits), int64 [n]; -1 where it is not held."""
        if not len(keys):
            return np.empty(0, dtype=np.int64)
        packed = np.frombuffer(bytes.fromhex("".join(keys)), dtype=_KEY)
        if len(packed) != len(keys):
            raise ValueError("keys must have 32 hexadecimal digits each")
        if not self._count:
            return np.full(len(keys), -1, dtype=np.int64)
        place = np.searchsorted(self._lookup, packed["lookup"]).clip(max=self._count - 1)
        held = (self._lookup[place] == packed["lookup"]) & (self._check[place] == packed["check"])
        return np.where(held, self._order[place], -1)

    def add(self, keys: Sequence[str], embeddings: np.ndarray) -> None:
        """Appends rows, shape [n, dimension]; keys must be new. On disk when it returns."""
        if len(keys) != len(embeddings):
            raise ValueError(f"got {len(keys)} keys for {len(embeddings)} embeddings")
        if not len(keys):
            return
        rows = normalise(embeddings)
        if rows.shape[1] != self.dimension:
            raise ValueError(f"embeddings must have dimension {self.dimension}; got {rows.shape}")
        # Rows before keys: a key on disk always has its row.
        for path, data in (
            (self._rows_path, rows.astype("<f2").tobytes()),
            (self._keys_path, bytes.fromhex("".join(keys))),
        ):
            with path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
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
        fetch: Callable[[int], Any],
        encoder: Encoder,
        block: int = 4096,
        progress: Callable[[int], None] | None = None,
    ) -> Subset:
        """Embeddings of items by key; only items that are not held are fetched and encoded.

        Parameters
        ----------
        keys : sequence of n keys
            `content_key` of each item; equal ones are encoded once.
        fetch : callable
            `fetch(i)` gives item i for the encoder (a picture, its bytes or path, or a string).
        encoder : Encoder
            Not even loaded where all keys are held.
        block : int
            Items between two writes: what a killed run loses at most.
        progress : callable, optional
            Called with the number of items just finished.

        Returns
        -------
        Subset, shape [n, dimension]
            Rows of the file, in the order of `keys`.
        """
        missing: dict[str, int] = {}
        for number, (key, place) in enumerate(zip(keys, self.find(keys), strict=True)):
            if place < 0:
                missing.setdefault(key, number)
        wanted = list(missing.items())
        if progress is not None and len(wanted) < len(keys):
            progress(len(keys) - len(wanted))
        for start in range(0, len(wanted), block):
            part = wanted[start : start + block]
            items: Iterator[Any] = (fetch(number) for _, number in part)
            self.add([key for key, _ in part], encoder.encode(items, self.modality))
            if progress is not None:
                progress(len(part))
        return self.rows(self.find(keys))
