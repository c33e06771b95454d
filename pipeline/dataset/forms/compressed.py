"""Files that are compressed, whatever their names say: read as what is within them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

import pyarrow as pa

from pipeline.dataset.forms.base import DatasetError

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def compression(file: IO[bytes]) -> str | None:
    """How a file is compressed, by its first bytes; it is read from its beginning afterwards."""
    head = file.read(6)
    file.seek(0)
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def plain(file: IO[bytes]) -> IO[bytes]:
    """A file's content, decompressed as it is read; the file itself where it is plain."""
    kind = compression(file)
    if kind == "gzip":
        return cast("IO[bytes]", gzip.open(file))
    if kind == "bz2":
        return cast("IO[bytes]", bz2.open(file))
    if kind == "xz":
        return cast("IO[bytes]", lzma.open(file))
    if kind == "zstd":
        return io.BufferedReader(_Zstandard(file))
    return file


@contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Say in one line that a compressed file is cut or damaged.

    Raises
    ------
    DatasetError
    """
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, DamagedStream) as error:
        raise DatasetError(
            f"{name} is compressed, and cut or damaged; write or copy it again ({error})"
        ) from None
    except OSError as error:
        # bz2's way to say so; an error of the disk or a server has a number.
        if error.errno is not None:
            raise
        raise DatasetError(
            f"{name} is compressed, and cut or damaged; write or copy it again ({error})"
        ) from None


class DamagedStream(ValueError):
    """Zstandard data that can't be decompressed."""


class _Zstandard(io.RawIOBase):
    """Zstandard by Arrow, as the standard library has it only since Python 3.14."""

    def __init__(self, file: IO[bytes]) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer))
        except (OSError, pa.ArrowException) as error:
            raise DamagedStream(str(error).splitlines()[0]) from None
        buffer[: len(data)] = data
        return len(data)
