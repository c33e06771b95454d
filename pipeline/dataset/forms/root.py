"""A dataset's folder, local or on any fsspec file system, that no path from data can leave."""

from __future__ import annotations

import errno
import fnmatch
import os
import posixpath
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from pipeline.dataset.forms.base import DatasetError, digest

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".jp2", ".heic", ".svg", ".ppm", ".tga"),
)
MAX_IMAGE_BYTES = 1 << 28

# What Spark, Hive, Impala, Delta, img2dataset and macOS lay beside data, which is none itself. All
# else that starts with "_" is data: cameras name their files so.
_BESIDE_DATA = frozenset(
    ["_SUCCESS", "_metadata", "_common_metadata", "_spark_metadata", "_temporary", "_tmp"]
    + ["_impala_insert_staging", "_delta_log", "_change_data", "__MACOSX"]
)

_REQUESTS = 16

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL)
_REFUSED = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO)


class Root:
    """A folder and the files below it.

    Parameters
    ----------
    fs
        An fsspec file system.
    path
        The folder on it.
    pattern
        Names (relative to the folder) that belong to the dataset, with `*`, `**` and `?`; None
        for all.
    """

    def __init__(self, fs: Any, path: str, pattern: str | None = None) -> None:
        self.fs = fs
        protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
        self.local = protocol in ("file", "local")
        self.path = os.path.realpath(path) if self.local else path.rstrip("/")
        self.pattern = pattern
        self._names: list[str] | None = None
        self._details: dict[str, dict[str, Any]] = {}

    @classmethod
    def of(cls, path: str, base: Path) -> Root:
        """The root of a path or URL of a folder, a file, or a glob; relative paths are to `base`.

        Raises
        ------
        DatasetError
            If nothing is there.
        """
        from fsspec.core import url_to_fs

        located = path
        if "://" not in path:
            located = os.path.join(os.path.abspath(base), os.path.expanduser(path))
        try:
            fs, full = url_to_fs(located)
        except (ImportError, ValueError) as error:
            raise DatasetError(f"path {path!r} cannot be opened: {error}") from None
        special = min((full.find(c) for c in "*?[" if c in full), default=-1)
        if special >= 0 and not fs.exists(full):
            folder = full[: full.rfind("/", 0, special)]
            root = cls(fs, folder, full[len(folder) + 1 :])
            if not root.names():
                raise DatasetError(f"no file matches path {path!r}")
            return root
        if fs.isdir(full):
            return cls(fs, full)
        if fs.isfile(full):
            folder, _, name = full.rpartition("/")
            return cls(fs, folder, _literal(name))
        raise DatasetError(f"path {path!r} is not there (looked at {located})")

    def url(self, name: str) -> str:
        """The address of a file."""
        full = f"{self.path}/{name}"
        return full if self.local else str(self.fs.unstrip_protocol(full))

    def names(self) -> list[str]:
        """All files below, relative, in order.

        Left out are hidden ones (with a leading dot), what is known to lie beside data, and the
        pattern's misses.
        """
        if self._names is None:
            found = self._walk() if self.local else self._find()
            self._names = sorted(n for n in found if self._belongs(n))
        return self._names

    def __contains__(self, name: str) -> bool:
        return posixpath.basename(name) in self._folders.get(posixpath.dirname(name), ())

    def images(self, folder: str) -> list[str]:
        """The image files right in a folder (relative, "" for the root itself), in order."""
        inside = self._folders.get(folder, ())
        return [posixpath.join(folder, base) for base in inside if is_image(base)]

    def folders(self) -> list[str]:
        """Folders that hold any file, relative, in order."""
        return sorted(self._folders)

    @cached_property
    def _folders(self) -> dict[str, dict[str, None]]:
        found: dict[str, dict[str, None]] = {}
        for name in self.names():
            folder, base = posixpath.split(name)
            found.setdefault(folder, {})[base] = None
        return found

    def version(self, name: str) -> str:
        """Changes when the file may have: its ETag, or size and modification time.

        Raises
        ------
        DatasetError
            If it is not there any more.
        """
        try:
            if self.local:
                status = os.stat(os.path.join(self.path, name))
                return f"{status.st_size}-{status.st_mtime_ns}"
            full = f"{self.path}/{name}"
            detail = self._details.get(name) or self.fs.info(full)
        except FileNotFoundError:
            raise DatasetError(f"{self.url(name)} is no longer there") from None
        etag = detail.get("ETag") or detail.get("etag")
        if etag:
            return str(etag).strip('"')
        when = detail.get("mtime") or detail.get("LastModified") or detail.get("created") or ""
        return f"{detail.get('size')}-{when}"

    def listing_version(self, names: list[str]) -> str:
        """One version for many files; one that cannot be looked at (a broken link) counts too."""
        return digest(part for name in names for part in (name, self._looked_at(name) or "none"))

    def image_version(self, path: str) -> str | None:
        """The version of an image that the data names, None where there is none to be had at once."""
        if self.local:
            return self._looked_at(path)
        self.names()
        name = posixpath.normpath(path.removeprefix(f"{self.path}/"))
        return self._looked_at(name) if name in self._details else None

    def _looked_at(self, name: str) -> str | None:
        try:
            return self.version(name)
        except (ValueError, OSError):  # gone, out of reach, or no name of a file
            return None

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the dataset itself.

        Raises
        ------
        DatasetError
            If it is not there any more.
        """
        try:
            return self.fs.open(f"{self.path}/{name}", "rb")
        except FileNotFoundError:
            raise DatasetError(f"{self.url(name)} is no longer there") from None

    def read_image(self, path: str) -> tuple[bytes | None, str | None]:
        """Read an image that the data names: its bytes, or why there are none.

        The path is relative to the root, or absolute and within it; symbolic links are followed
        only to files within it. Reasons: "empty", "url", "outside", "not found", "not readable",
        "not a file", "too large". Errors that may pass (I/O, a server) are raised.
        """
        if not path.strip():
            return None, "empty"
        if "://" in path or path.startswith("data:"):
            return None, "url"
        if "\0" in path:
            return None, "not found"
        return self._read_local(path) if self.local else self._read_remote(path)

    def read_images(self, paths: Sequence[str]) -> list[tuple[bytes | None, str | None]]:
        """`read_image` of each path; at the same time where that takes a server."""
        if self.local or len(paths) < 2:
            return [self.read_image(path) for path in paths]
        with ThreadPoolExecutor(_REQUESTS) as threads:
            return list(threads.map(self.read_image, paths))

    def _read_local(self, path: str) -> tuple[bytes | None, str | None]:
        try:
            full = os.path.realpath(os.path.join(self.path, path), strict=True)
            if full != self.path and not full.startswith(self.path.rstrip("/") + "/"):
                return None, "outside"
            # Without O_NONBLOCK a named pipe would wait for a writer for ever.
            handle = os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _MISSING:
                # Where a path that leaves the folder leads is not told, not even that it is empty.
                whole = os.path.realpath(os.path.join(self.path, path))
                inside = whole.startswith(self.path.rstrip("/") + "/")
                return None, "not found" if inside else "outside"
            if error.errno in _REFUSED:
                return None, "not readable"
            raise
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                return None, "not a file"
            if status.st_size > MAX_IMAGE_BYTES:
                return None, "too large"
            with open(handle, "rb", closefd=False) as file:
                data = file.read()
        finally:
            os.close(handle)
        return (data, None) if data else (None, "empty")

    def _read_remote(self, path: str) -> tuple[bytes | None, str | None]:
        full = posixpath.normpath(path if path.startswith("/") else f"{self.path}/{path}")
        if not full.startswith(self.path + "/"):
            return None, "outside"
        try:
            if self.fs.size(full) > MAX_IMAGE_BYTES:
                return None, "too large"
            data = self.fs.cat_file(full)
        except (FileNotFoundError, IsADirectoryError):
            return None, "not found"
        except PermissionError:
            return None, "not readable"
        return (data, None) if data else (None, "empty")

    def _belongs(self, name: str) -> bool:
        if any(map(_beside_data, name.split("/"))):
            return False
        return self.pattern is None or _matches(name, self.pattern)

    def _walk(self) -> list[str]:
        if not os.path.isdir(self.path):
            raise DatasetError(f"the folder {self.path} is not there")
        found, seen = [], set()
        for folder, below, names in os.walk(self.path, followlinks=True):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
                below.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            if folder != self.path and _is_output(below, names):
                below.clear()
                continue
            below[:] = [b for b in below if not _beside_data(b)]
            start = os.path.relpath(folder, self.path)
            found += names if start == "." else [f"{start}/{name}" for name in names]
        return found

    def _find(self) -> list[str]:
        listed = self.fs.find(self.path, detail=True)
        start = len(self.path) + 1
        self._details = {full[start:]: detail for full, detail in listed.items()}
        return list(self._details)


def is_image(name: str) -> bool:
    """Whether a name ends as an image's does."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def _beside_data(base: str) -> bool:
    return base.startswith(".") or base in _BESIDE_DATA


def _is_output(folders: list[str], names: list[str]) -> bool:
    """Whether a folder is a run's or an export: those may lie in the dataset's own folder."""
    return {"ledger", "completed"} <= set(folders) or ".export.json" in names


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _matches(name: str, pattern: str) -> bool:
    """Match whole paths: `*` and `?` stay within a folder, `**` is any number of folders."""
    return _match_parts(name.split("/"), pattern.split("/"))


def _match_parts(name: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_match_parts(name[i:], pattern[1:]) for i in range(len(name) + 1))
    return (
        bool(name)
        and fnmatch.fnmatchcase(name[0], pattern[0])
        and _match_parts(name[1:], pattern[1:])
    )
