"""Where the members of tars lie, found once and kept in files that are mapped, not read, for a row.

A row of any of a thousand shards then costs a seek and a read. In memory is what was looked at of the
maps, which the system may drop; of a source without a folder for them, the indexes themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import IO, Self

import pyarrow as pa

from pipeline.dataset.forms.base import Left
from pipeline.dataset.forms.compressed import plain
from pipeline.dataset.forms.names import is_image
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.tars import (
    DEAD_LINK,
    FOLDED,
    NO_SUFFIX,
    NOWHERE,
    Member,
    members,
    whole,
)
from pipeline.storage.digests import digest
from pipeline.storage.files import writing_whole

# Indexes that are open at a time.
OPEN = 16

_FORMAT = "2"
_AT_ONCE = 256
_PART = pa.struct([("place", pa.int64()), ("size", pa.int64())])
_MEMBER = pa.struct(
    [
        ("extension", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("sparse", pa.list_(_PART)),
    ]
)
_SCHEMA = pa.schema([("key", pa.string()), ("members", pa.list_(_MEMBER))])

Sample = tuple[str, list[Member]]


class TarIndex:
    """The samples of a tar: a key and the members that have it, in the order of the first ones.

    Attributes
    ----------
    table : pyarrow.Table
        Columns `key` and `members`; in one piece.
    compressed : bool
    scattered : bool
        Whether members of one sample lie apart.
    left : dict of str to Left
        Members that belong to no sample, since their names have no suffix, links that lead to no
        member, and pictures that were likely meant as samples of their own (`2021.01.05.jpg`).
    """

    def __init__(
        self, table: pa.Table, compressed: bool, scattered: bool, left: dict[str, Left]
    ) -> None:
        self.table = table
        self.compressed = compressed
        self.scattered = scattered
        self.left = left

    def __len__(self) -> int:
        return len(self.table)

    @property
    def unpacked(self) -> bool:
        """Whether its bytes have to be unpacked to be read at offsets."""
        return self.compressed and self.scattered

    @classmethod
    def read(cls, name: str, file: IO[bytes]) -> Self:
        """Read all headers of a tar.

        Raises
        ------
        DatasetError
            It is cut or damaged.
        """
        samples: list[Sample] = []
        numbers: dict[str, int] = {}
        scattered = False
        left = {kind: Left() for kind in (NO_SUFFIX, DEAD_LINK, FOLDED)}
        with whole(name):
            content = plain(file)
            for path, key, member in members(content, samples, numbers):
                if not key:
                    left[NO_SUFFIX].add(f"{name}/{path}")
                    continue
                if member.offset == NOWHERE:
                    left[DEAD_LINK].add(f"{name}/{path}")
                number = numbers.setdefault(key, len(samples))
                if number == len(samples):
                    samples.append((key, []))
                scattered |= number < len(samples) - 1
                samples[number][1].append(member)
        for key, held in samples:
            for member in _folded(held):
                left[FOLDED].add(f"{name}/{key}.{member.extension}")
        table = pa.table(
            {
                "key": [key for key, _ in samples],
                "members": [[_packed(member) for member in held] for _, held in samples],
            },
            schema=_SCHEMA,
        )
        return cls(table, content is not file, scattered, left)

    def samples(self, positions: Iterable[int] | None = None) -> Iterator[Sample]:
        """Some samples by their positions, or all in order."""
        wanted = iter(range(len(self)) if positions is None else positions)
        while part := list(islice(wanted, _AT_ONCE)):
            for row in self.table.take(pa.array(part, pa.int64())).to_pylist():
                yield row["key"], [_member(one) for one in row["members"]]

    def save(self, path: Path, version: str) -> None:
        """Write the index to a file, with the version of its tar."""
        told = {"format": _FORMAT, "version": version}
        left = {kind: asdict(some) for kind, some in self.left.items()}
        told["seen"] = json.dumps([self.compressed, self.scattered, left])
        table = self.table.replace_schema_metadata(told).combine_chunks()
        with (
            writing_whole(path) as scratch,
            pa.OSFile(str(scratch), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table, max_chunksize=max(1, len(table)))

    @classmethod
    def load(cls, path: Path, version: str) -> Self | None:
        """Map what `save` wrote of the same version of the tar; None where there is none."""
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (FileNotFoundError, pa.ArrowInvalid):
            return None
        told = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        if (told.get("format"), told.get("version")) != (_FORMAT, version):
            return None
        compressed, scattered, left = json.loads(told["seen"])
        return cls(table, compressed, scattered, {kind: Left(**one) for kind, one in left.items()})


class TarIndexes:
    """The indexes of a source's tars.

    Parameters
    ----------
    root : Root

    Attributes
    ----------
    folder : Path or None
        Where they are kept, a file each; None keeps those that were used last, in memory.
    """

    def __init__(self, root: Root) -> None:
        self.folder: Path | None = None
        self._root = root
        self._open: dict[tuple[str, str], TarIndex] = {}

    def of(self, name: str) -> TarIndex:
        """The index of a tar; its headers are read where none is kept of its version."""
        version = self._root.version(name)
        key = (name, version)
        if key not in self._open:
            while len(self._open) >= OPEN:
                del self._open[next(iter(self._open))]
            self._open[key] = self._kept(name, version) or self._read(name, version)
        return self._open[key]

    def _kept(self, name: str, version: str) -> TarIndex | None:
        return None if self.folder is None else TarIndex.load(self._place(name), version)

    def _read(self, name: str, version: str) -> TarIndex:
        with self._root.open(name) as file:
            index = TarIndex.read(name, file)
        if self.folder is None:
            return index
        index.save(self._place(name), version)
        return TarIndex.load(self._place(name), version) or index

    def _place(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{digest(name)}.tar.arrow"


def _folded(held: Sequence[Member]) -> list[Member]:
    """The pictures of a sample but the first whose names go on after the first dot with a number."""
    dotted = (m for m in held if "." in m.extension and is_image(m.extension))
    by_stem = {member.extension.rpartition(".")[0]: member for member in dotted}
    return [member for member in list(by_stem.values())[1:] if member.extension[0].isdigit()]


def _packed(member: Member) -> dict[str, object]:
    sparse: Sequence[tuple[int, int]] | None = member.sparse
    parts = None if sparse is None else [{"place": p, "size": s} for p, s in sparse]
    return {
        "extension": member.extension,
        "offset": member.offset,
        "size": member.size,
        "sparse": parts,
    }


def _member(packed: dict[str, object]) -> Member:
    parts = packed["sparse"]
    sparse = None if parts is None else tuple((p["place"], p["size"]) for p in parts)  # type: ignore[attr-defined]
    return Member(packed["extension"], packed["offset"], packed["size"], sparse)  # type: ignore[arg-type]
