"""Tar files: where their members lie, and the bytes of a member.

Members are known by names and offsets, so that those of a sample may lie wherever they do. Compressed
tars are told by their first bytes, whatever their names.
"""

from __future__ import annotations

import lzma
import posixpath
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from pipeline.dataset.forms.base import DatasetError
from pipeline.dataset.forms.compressed import DamagedStream, plain
from pipeline.dataset.forms.names import is_beside_data, readable

# The offset of a link that leads to no file before it in the tar.
NOWHERE = -1

NO_SUFFIX = "members of tars whose names have no suffix"
DEAD_LINK = "links in tars that lead to no member before them"
FOLDED = "pictures in tars that are one row with another, since a name counts up to its first dot"

_BLOCK = 512
_COPIED = 1 << 20
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, DamagedStream)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: its extension in lower case, and where its bytes are.

    `sparse` are the parts of a file with holes, each by its place in the file and its size; they
    lie one after another from `offset` on.
    """

    extension: str
    offset: int
    size: int
    sparse: tuple[tuple[int, int], ...] | None = None

    @property
    def end(self) -> int:
        stored = self.size if self.sparse is None else sum(size for _, size in self.sparse)
        return self.offset + stored


@contextmanager
def whole(name: str) -> Iterator[None]:
    """Say of a tar that can't be read on that it is damaged."""
    try:
        yield
    except _DAMAGE as error:
        raise _cut(name, str(error)) from None
    except OSError as error:
        if error.errno is not None:
            raise  # the disk or the server, not the file
        raise _cut(name, str(error)) from None


def _cut(name: str, why: str) -> DatasetError:
    return DatasetError(
        f"{name} is not a whole tar, cut or damaged; write or copy it again ({why})"
    )


@contextmanager
def opened(name: str, file: IO[bytes], unpack: bool) -> Iterator[IO[bytes]]:
    """A tar's plain bytes, to be read at the offsets of its members.

    With `unpack` an unnamed temporary file holds them: for a compressed one whose samples are scattered,
    since in it every step back starts from its beginning.
    """
    with whole(name):
        content = plain(file)
        if not unpack:
            yield content
            return
        with tempfile.TemporaryFile() as unpacked:
            while block := content.read(_COPIED):
                unpacked.write(block)
            yield unpacked


def read_member(name: str, file: IO[bytes], member: Member) -> bytes:
    """The bytes of a member of a plain tar."""
    file.seek(member.offset)
    stored = file.read(member.end - member.offset)
    if member.offset + len(stored) < member.end:
        raise DatasetError(f"{name} is cut at byte {member.offset + len(stored)}; copy it again")
    if member.sparse is None:
        return stored
    data, read = bytearray(member.size), 0
    for place, size in member.sparse:
        data[place : place + size] = stored[read : read + size]
        read += size
    return bytes(data)


def members(
    file: IO[bytes], samples: list[tuple[str, list[Member]]], numbers: dict[str, int]
) -> Iterator[tuple[str, str, Member]]:
    """The files in a tar, each with its name and key; a link within it is the file that it leads to."""
    start = 0
    while True:
        end = start
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                key, extension = _split(info.name)
                member = Member(extension, info.offset_data, info.size, _sparse(info))
                if info.islnk() or info.issym():
                    found = _linked(info, samples, numbers) or Member("", NOWHERE, 0)
                    member = Member(extension, found.offset, found.size, found.sparse)
                elif info.isfile():
                    end = max(end, member.end)
                hidden = is_beside_data(posixpath.basename(info.name))
                if (key or not hidden) and (info.isfile() or info.islnk() or info.issym()):
                    yield readable(info.name), key, member
                tar.members = []  # type: ignore[attr-defined]  # else every header is kept
            following = tar.offset
        file.seek(0, 2)
        if file.tell() < end:
            raise tarfile.ReadError("unexpected end of data")
        before, start = start, _next_tar(file, following)
        if start < 0:
            return
        if start == before:
            raise tarfile.ReadError("a header is damaged")


def _sparse(info: tarfile.TarInfo) -> tuple[tuple[int, int], ...] | None:
    parts: Any = info.sparse
    return None if parts is None else tuple((place, size) for place, size in parts if size)


def _linked(
    info: tarfile.TarInfo, samples: list[tuple[str, list[Member]]], numbers: dict[str, int]
) -> Member | None:
    target = info.linkname
    if info.issym():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(info.name), target))
    key, extension = _split(target)
    for member in samples[numbers[key]][1] if key in numbers else ():
        if member.extension == extension:
            return member
    return None


def _split(name: str) -> tuple[str, str]:
    """The key and the extension of a member; no key where it has none."""
    folder, base = posixpath.split(readable(name))
    stem, dot, extension = base.partition(".")
    return (posixpath.join(folder, stem) if dot and stem else ""), extension.lower()


def _next_tar(file: IO[bytes], start: int) -> int:
    """Where another tar begins that was appended to one, or -1."""
    file.seek(start)
    while block := file.read(_COPIED):
        if rest := block.lstrip(b"\0"):
            return start + (len(block) - len(rest)) // _BLOCK * _BLOCK
        start += len(block)
    return -1
