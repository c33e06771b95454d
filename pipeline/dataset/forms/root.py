"""A dataset's folder, local or on any fsspec file system, that no path from data can leave."""

from __future__ import annotations

import codecs
import fnmatch
import os
import posixpath
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from pipeline.dataset.forms.base import DatasetError
from pipeline.dataset.forms.compressed import damage_named, plain
from pipeline.dataset.forms.names import is_beside_data, is_image, readable
from pipeline.storage.digests import digest

# A file of no more bytes is looked into for whether it holds any, as an empty one that is packed has some.
_BLANK = 512
# What stands in a file's place where Git LFS was to fetch it and has not.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


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
        self._empty: dict[str, bool] = {}
        # Names whose bytes are not UTF-8, by what they are called here.
        self._written: dict[str, str] = {}

    @classmethod
    def of(cls, path: str, base: Path) -> Root:
        """The root of a path or URL of a folder, a file, or a glob; relative paths are to `base`.

        Raises
        ------
        DatasetError
            If nothing is there.
        """
        from fsspec.core import url_to_fs

        if readable(path) != path:
            raise DatasetError(f"path {readable(path)!r} is not UTF-8; rename it")
        located = path
        if "://" not in path:
            located = os.path.join(os.path.abspath(base), os.path.expanduser(path))
        try:
            fs, full = url_to_fs(located)
        except (ImportError, ValueError) as error:
            raise DatasetError(f"path {path!r} cannot be opened: {error}") from None
        if set(full) & set("*?[") and not fs.exists(full):
            folder = _literal_folder(fs, full)
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
            self._names = sorted(self._called(n) for n in found if self._belongs(n))
        return self._names

    def place(self, name: str) -> str:
        """Where a file is, as the file system takes it."""
        return f"{self.path}/{self._written.get(name, name)}"

    def _called(self, written: str) -> str:
        """What a file is called here: its name, as text."""
        name = readable(written)
        if name != written:
            if name in self._written or os.path.lexists(f"{self.path}/{name}"):
                raw = written.encode("utf-8", "surrogateescape")
                name = raw.decode("utf-8", "backslashreplace")
            self._written[name] = written
        return name

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
                status = os.stat(os.path.join(self.path, self._written.get(name, name)))
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

    def filled(self, names: Iterable[str]) -> list[str]:
        """Those of some files that hold anything: no form knows what to make of no byte."""
        return [name for name in names if not self.is_empty(name)]

    def is_empty(self, name: str) -> bool:
        """Whether a file has no byte, also unpacked, or only white space; looked at once."""
        if name not in self._empty:
            try:
                size = (
                    os.stat(self.place(name)).st_size
                    if self.local
                    else (self._details.get(name) or self.fs.info(self.place(name))).get("size")
                )
            except OSError:  # opening it will tell why
                size = None
            self._empty[name] = size == 0 or (
                size is not None and size <= _BLANK and self._is_blank(name)
            )
        return self._empty[name]

    def _is_blank(self, name: str) -> bool:
        """Whether a small file holds nothing that shows."""
        try:
            with self.open(name) as file, damage_named(name):
                held = plain(file).read(_BLANK)
        except (DatasetError, OSError):  # reading it will tell why
            return False
        return not held.removeprefix(codecs.BOM_UTF8).strip()

    def listing_version(self, names: list[str]) -> str:
        """One version for many files; one that cannot be looked at (a broken link) counts too."""
        return digest(*(part for name in names for part in (name, self.looked_at(name) or "none")))

    def looked_at(self, name: str) -> str | None:
        """The version of a file, None where there is none to be had."""
        try:
            return self.version(name)
        except (ValueError, OSError):  # gone, out of reach, or no name of a file
            return None

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the dataset itself.

        Raises
        ------
        DatasetError
            If it is not there any more, or never was: a Git LFS pointer stands in its place.
        """
        try:
            file = self.fs.open(self.place(name), "rb")
        except FileNotFoundError:
            raise DatasetError(f"{self.url(name)} is no longer there") from None
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            file.close()
            raise DatasetError(
                f"{name} is a Git LFS pointer, not the file itself; first: git lfs pull"
            )
        file.seek(0)
        return file

    def _belongs(self, name: str) -> bool:
        if any(map(is_beside_data, name.split("/"))):
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
            below[:] = [b for b in below if not is_beside_data(b)]
            if {"blobs", "snapshots"} <= set(below):  # a cache of the Hugging Face Hub
                below[:] = ["snapshots"]
            start = os.path.relpath(folder, self.path)
            found += names if start == "." else [f"{start}/{name}" for name in names]
        return found

    def _find(self) -> list[str]:
        listed = self.fs.find(self.path, detail=True)
        start = len(self.path) + 1
        self._details = {full[start:]: detail for full, detail in listed.items()}
        return list(self._details)


def _is_output(folders: list[str], names: list[str]) -> bool:
    """Whether a folder is a run's or an export: those may lie in the dataset's own folder."""
    return {"ledger", "completed"} <= set(folders) or ".export.json" in names


def _literal_folder(fs: Any, pattern: str) -> str:
    """The folder that a glob is below: all that is there as it is written, brackets and all."""
    folder = pattern[: pattern.rfind("/", 0, min(pattern.find(c) for c in "*?[" if c in pattern))]
    for part in pattern[len(folder) + 1 :].split("/")[:-1]:
        if not fs.isdir(f"{folder}/{part}"):
            break
        folder = f"{folder}/{part}"
    return folder


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
