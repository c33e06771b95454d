"""Pictures that lie packed in zip files beside the rows which name them, read without unpacking."""

from __future__ import annotations

import posixpath
import threading
import zipfile
import zlib
from typing import IO

from pipeline.dataset.forms import reasons
from pipeline.dataset.forms.base import MAX_IMAGE_BYTES
from pipeline.dataset.forms.names import AlikeNames, is_beside_data, is_image
from pipeline.dataset.forms.root import Root

ZIP_SUFFIX = ".zip"


class Archives:
    """The zip files below a root, opened when a picture is first looked for in them.

    A picture's path means a member of that path, from the zip's own folder, or from a folder of the
    zip's name beside it (`images.zip` for `images/`); the one folder that holds all of a zip may be
    left out. A zip that can't be opened holds none.
    """

    def __init__(self, root: Root) -> None:
        self.root = root
        self.names = [n for n in root.names() if n.lower().endswith(ZIP_SUFFIX)]
        self._open: dict[str, _Archive | None] = {}
        self._lock = threading.Lock()

    def find(self, path: str, loosely: bool = True) -> tuple[str, str] | None:
        """The zip and the member that a path means; None where none does, or more than one."""
        found = set()
        for name in self.names:
            archive = self._archive(name)
            member = archive and archive.find(path, loosely)
            if member:
                found.add((name, member))
        return found.pop() if len(found) == 1 else None

    def members(self, name: str) -> list[str]:
        """All files in a zip that can be opened."""
        archive = self._archive(name)
        assert archive is not None
        return [
            m
            for m in archive.zip.namelist()
            if not (m.endswith("/") or any(map(is_beside_data, m.split("/"))))
        ]

    def version(self, place: tuple[str, str]) -> str:
        """Changes when the member may have."""
        name, member = place
        archive = self._archive(name)
        assert archive is not None
        info = archive.zip.getinfo(member)
        return f"{self.root.version(name)}/{info.CRC:08x}-{info.file_size}"

    def read(self, place: tuple[str, str]) -> tuple[bytes | None, str | None]:
        """A member's bytes, or why there are none."""
        name, member = place
        archive = self._archive(name)
        assert archive is not None
        return archive.read(member)

    def _archive(self, name: str) -> _Archive | None:
        with self._lock:
            if name not in self._open:
                try:
                    self._open[name] = _Archive(name, self.root.open(name))
                except zipfile.BadZipFile:
                    self._open[name] = None
            return self._open[name]


class _Archive:
    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.zip = zipfile.ZipFile(file)
        self._stem = posixpath.splitext(name)[0]
        self._folder = posixpath.dirname(name)
        members = [m for m in self.zip.namelist() if is_image(m)]
        self._alike = AlikeNames(members)
        tops = {member.split("/", 1)[0] if "/" in member else None for member in members}
        self._top = tops.pop() if len(tops) == 1 else None
        self._lock = threading.Lock()

    def find(self, path: str, loosely: bool) -> str | None:
        within = [
            posixpath.relpath(path, folder) if folder else path
            for folder in (self._folder, self._stem)
        ]
        inside = [p for p in within if not p.startswith("../")]
        tried = inside + [f"{self._top}/{p}" for p in inside if self._top]
        held = (self._alike.find(one, loosely) for one in tried)
        return next(filter(None, held), None)

    def read(self, member: str) -> tuple[bytes | None, str | None]:
        if self.zip.getinfo(member).file_size > MAX_IMAGE_BYTES:
            return None, reasons.TOO_LARGE
        try:
            # What a header says of the size may be wrong: no more is unpacked than allowed.
            with self._lock, self.zip.open(member) as file:
                data = file.read(MAX_IMAGE_BYTES + 1)
        except RuntimeError:  # it wants a password
            return None, reasons.LOCKED
        except NotImplementedError:
            return None, reasons.PACKED
        except (zipfile.BadZipFile, EOFError, zlib.error):
            return None, reasons.DAMAGED
        if len(data) > MAX_IMAGE_BYTES:
            return None, reasons.TOO_LARGE
        return (data, None) if data else (None, reasons.EMPTY_FILE)
