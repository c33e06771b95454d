"""WebDataset shards: tar files whose members of one name before the first dot are one row.

The columns are `__key__`, `image` (the member with an image's extension), the keys of a `.json`
member, and every other member under its extension. Nothing is ever unpacked to disk.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa

from pipeline.dataset.forms.base import (
    BATCH_BYTES,
    BATCH_ROWS,
    IMAGE_CELL,
    MAX_IMAGE_BYTES,
    Batch,
    DatasetError,
    SourceFile,
)
from pipeline.dataset.forms.names import IMAGE_SUFFIXES
from pipeline.dataset.forms.readings import Readings
from pipeline.dataset.forms.reasons import TOO_LARGE
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.rows import infer_schema, to_batch

KEY = "__key__"
IMAGE = "image"
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
TEXT_NAMES = ("text", "caption", "captions", "txt")

_HEAD_SAMPLES = 256
_INDEXES = 16
_TEXT_MEMBERS = ("txt", "text", "caption", "cls", "cls2", "index", "inx", "id")


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: its extension in lower case, and where its bytes are."""

    extension: str
    offset: int
    size: int


class TarIndex:
    """Where the members of a tar are, grouped to samples; the tar's data is skipped over."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.samples: list[tuple[str, list[Member]]] = []
        for key, member in _members(name, file):
            if not self.samples or self.samples[-1][0] != key:
                self.samples.append((key, []))
            self.samples[-1][1].append(member)


class WebDatasetSource:
    """Every tar below a root."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._schema: pa.Schema | None = None
        self._indexes: dict[tuple[str, str], TarIndex] = {}
        self._readings = Readings()

    def names(self) -> list[str]:
        return [n for n in self.root.names() if n.lower().endswith(TAR_SUFFIXES)]

    def files(self) -> list[SourceFile]:
        return [SourceFile(n, self.root.url(n), self.root.version(n)) for n in self.names()]

    def schema(self) -> pa.Schema:
        if self._schema is None:
            self._schema = self._infer()
        return self._schema

    def batches(self, name: str, columns: Sequence[str]) -> Iterator[Batch]:
        with self.root.open(name) as file, _plain(name, file) as plain:
            # Members are read as they come, so that a compressed tar is gone through once.
            rows = _rows(name, plain, set(columns))
            yield from _batches(rows, self.schema(), columns, name)

    def take(self, name: str, positions: np.ndarray, columns: Sequence[str]) -> Iterator[Batch]:
        if not name.lower().endswith(".tar"):
            key = (name, self.root.version(name), tuple(columns))
            yield from self._readings.take(key, positions, lambda: self.batches(name, columns))
            return
        index = self.index(name)
        if len(positions) and positions[-1] >= len(index.samples):
            raise DatasetError(f"{name} has no row {positions[-1]}: it has changed")
        with self.root.open(name) as file:
            samples = ((int(p), *index.samples[p]) for p in positions)
            rows = (
                (p, _row(name, key, members, file, set(columns))) for p, key, members in samples
            )
            yield from _batches(rows, self.schema(), columns, name)

    def index(self, name: str) -> TarIndex:
        """The index of a shard, kept for the last few shards asked for."""
        key = (name, self.root.version(name))
        if key not in self._indexes:
            while len(self._indexes) >= _INDEXES:
                del self._indexes[next(iter(self._indexes))]
            with self.root.open(name) as file:
                self._indexes[key] = TarIndex(name, file)
        return self._indexes[key]

    def _infer(self) -> pa.Schema:
        name = self.names()[0]
        rows = []
        with self.root.open(name) as file, _plain(name, file) as plain:
            for _, row in _rows(name, plain, None):
                rows.append({key: value for key, value in row.items() if key != IMAGE})
                if len(rows) >= _HEAD_SAMPLES:
                    break
        found = infer_schema(rows)
        fields = [pa.field(KEY, pa.string()), pa.field(IMAGE, IMAGE_CELL)]
        fields += [field for field in found if field.name != KEY]
        if not any(field.name in TEXT_NAMES for field in fields):
            fields.append(pa.field("txt", pa.string()))
        return pa.schema(fields)


def _plain(name: str, file: IO[bytes]) -> IO[bytes]:
    import gzip

    return file if name.lower().endswith(".tar") else gzip.open(file)  # type: ignore[return-value]


def _members(name: str, file: IO[bytes]) -> Iterator[tuple[str, Member]]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            end = 0
            for info in tar:
                folder, base = posixpath.split(info.name)
                stem, dot, extension = base.partition(".")
                end = info.offset_data + info.size
                if info.isreg() and dot and stem:
                    key = posixpath.join(folder, stem)
                    yield key, Member(extension.lower(), info.offset_data, info.size)
                tar.members = []  # type: ignore[attr-defined]  # else every header is kept
            file.seek(0, 2)
            if file.tell() < end:
                raise tarfile.ReadError("unexpected end of data")
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(
            f"{name} is not a whole tar, cut or damaged; write or copy it again ({error})"
        ) from None


def _rows(
    name: str, file: IO[bytes], columns: set[str] | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a tar in order; `columns` None leaves out the images' bytes."""
    position, row, current = -1, {}, None
    for key, member in _members(name, file):
        if key != current:
            if current is not None:
                yield position, row
            position, row, current = position + 1, {KEY: key}, key
        _add(row, name, key, member, file, columns)
    if current is not None:
        yield position, row


def _row(
    name: str, key: str, members: list[Member], file: IO[bytes], columns: set[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {KEY: key}
    for member in members:
        _add(row, name, key, member, file, columns)
    return row


def _add(
    row: dict[str, Any],
    name: str,
    key: str,
    member: Member,
    file: IO[bytes],
    columns: set[str] | None,
) -> None:
    if f".{member.extension}" in IMAGE_SUFFIXES:
        if IMAGE in row:
            return
        path = f"{key}.{member.extension}"
        if member.size > MAX_IMAGE_BYTES:
            row[IMAGE] = {"path": path, "reason": TOO_LARGE}
        elif columns is not None and IMAGE in columns:
            row[IMAGE] = {"bytes": read_member(name, file, member), "path": path}
        else:
            row[IMAGE] = {"path": path}
        return
    data = read_member(name, file, member)
    place = f"{name}, {key}.{member.extension}"
    if member.extension == "json":
        for field, value in _object(data, place).items():
            row.setdefault(f"json.{field}" if field in (KEY, IMAGE) else field, value)
    elif member.extension in _TEXT_MEMBERS:
        row[member.extension] = _text(data, place)
    else:
        row[member.extension] = data


def read_member(name: str, file: IO[bytes], member: Member) -> bytes:
    """The bytes of a member of a plain tar."""
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) < member.size:
        raise DatasetError(f"{name} is cut at byte {member.offset + len(data)}; copy it again")
    return data


def _text(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{place}: the text is not UTF-8 ({error.reason})") from None


def _object(data: bytes, place: str) -> dict[str, Any]:
    try:
        value = json.loads(_text(data, place))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DatasetError(f"{place}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise DatasetError(f"{place}: the JSON is not an object with columns")
    return value


def _batches(
    rows: Iterator[tuple[int, dict[str, Any]]],
    schema: pa.Schema,
    columns: Sequence[str],
    name: str,
) -> Iterator[Batch]:
    held: list[dict[str, Any]] = []
    positions: list[int] = []
    size = 0
    for position, row in rows:
        held.append(row)
        positions.append(position)
        size += len((row.get(IMAGE) or {}).get("bytes") or b"")
        if len(held) == BATCH_ROWS or size >= BATCH_BYTES:
            yield _batch(positions, held, schema, columns, name)
            held, positions, size = [], [], 0
    if held:
        yield _batch(positions, held, schema, columns, name)


def _batch(
    positions: list[int],
    rows: list[dict[str, Any]],
    schema: pa.Schema,
    columns: Sequence[str],
    name: str,
) -> Batch:
    where = [f"{name}, sample {row[KEY]}" for row in rows]
    return np.array(positions, dtype=np.int64), to_batch(rows, schema, columns, where)
