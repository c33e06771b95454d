"""Pictures that rows name by their paths: found in the dataset's folder or in zips, never beyond it."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from urllib.parse import unquote

from pipeline.dataset.forms import reasons
from pipeline.dataset.forms.archives import Archives
from pipeline.dataset.forms.base import MAX_IMAGE_BYTES
from pipeline.dataset.forms.names import AlikeNames, is_image, without_prefix
from pipeline.dataset.forms.root import Root

_REQUESTS = 16

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL)
_REFUSED = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO)

Answer = tuple[bytes | None, str | None]


class Pictures:
    """The pictures below a root.

    A path that is not there as it is written means the one file whose name differs by its separators,
    Unicode's normal form, or case alone; or one in the folder that holds all pictures; or else a
    member of a zip (see `Archives`).

    Parameters
    ----------
    root
        Its pattern does not matter: rows may name what lies beside them.
    prefix
        What paths begin with that were written elsewhere, and have to be without here.
    """

    def __init__(self, root: Root, prefix: str | None = None) -> None:
        self._prefix = prefix
        self.root = Root(root.fs, root.path) if root.pattern is not None else root
        self._bounds = [self.root.path, *filter(None, [_blobs(self.root)])]

    def listing_version(self) -> str:
        """Changes when any picture may have, or one was added."""
        names = [n for n in self.root.names() if is_image(n)]
        return self.root.listing_version(names + self._archives.names)

    def image_version(self, path: str) -> str | None:
        """The version of a picture that the data names, None where there is none to be had at once."""
        place = self.find(path)
        if isinstance(place, tuple):
            return self._archives.version(place)
        return None if place is None else self.root.looked_at(place)

    def find(self, path: str, loosely: bool = True) -> str | tuple[str, str] | None:
        """The file that a path means, or the zip and its member; None where there is neither.

        `loosely`: also what means the same less closely (`AlikeNames`), where nothing is closer.
        """
        return self._find(self._own(path), loosely)

    def _find(self, path: str, loosely: bool = True) -> str | tuple[str, str] | None:
        name = path.removeprefix(f"{self.root.path}/")
        if self.root.local:
            place = os.path.join(self.root.path, path)
            if os.path.lexists(place) and not os.path.isdir(place):
                return name
        elif posixpath.normpath(name) in self.root:
            return posixpath.normpath(name)
        if "\0" in path or "://" in path:
            return None
        only = self._only_folder
        tried = [name] if only is None else [name, posixpath.join(only, name)]
        for how in (False, True)[: 1 + loosely]:
            held = (self._alike.find(one, how) for one in tried)
            if found := next(filter(None, held), None) or self._archives.find(name, how):
                return found
        return None

    def read_image(self, path: str) -> Answer:
        """Read a picture that the data names: its bytes, or why there are none.

        The path is relative to the root, or absolute and within it; symbolic links are followed
        only to files within it, or, from a snapshot in a cache of the Hugging Face Hub, to the
        cache's own blobs. A reason is one of `reasons`, about the path. Errors
        that may pass (I/O, a server) are raised.
        """
        given, path = path, self._own(path)
        if not path.strip():
            return None, reasons.NO_IMAGE
        if "://" in path or path.startswith("data:"):
            return None, reasons.about(reasons.ONLY_URL, path)
        if "\0" in path:
            return None, reasons.about(reasons.NO_FILE, repr(path)[1:-1])
        data, reason = self._read(path)
        return data, reason and reasons.about(reason, given)

    def _own(self, path: str) -> str:
        """A path without the prefix; and of a URL, if that leads into the root, the path."""
        path = without_prefix(path, self._prefix)
        if "://" not in path:
            return path
        if self.root.local:
            full = unquote(path[7:]) if path.lower().startswith("file:///") else path
        else:
            full = str(self.root.fs._strip_protocol(path))
        folder = f"{self.root.path}/"
        return full.removeprefix(folder) if full.startswith(folder) else path

    def read_images(self, paths: Sequence[str]) -> list[Answer]:
        """`read_image` of each path; at the same time where that takes a server."""
        if self.root.local or len(paths) < 2:
            return [self.read_image(path) for path in paths]
        with ThreadPoolExecutor(_REQUESTS) as threads:
            return list(threads.map(self.read_image, paths))

    def leads_out(self, name: str) -> bool:
        """Whether a file of the folder is a link to one that is not within it."""
        return self.root.local and not self._within(os.path.realpath(self.root.place(name)))

    def packed(self, name: str) -> list[str]:
        """The files in a zip that a picture was found in."""
        return self._archives.members(name)

    def _read(self, path: str) -> Answer:
        answer = self._read_local(path) if self.root.local else self._read_remote(path)
        if answer[1] not in (reasons.NO_FILE, reasons.NOT_A_FILE):
            return answer
        place = self._find(path)
        if isinstance(place, tuple):
            return self._archives.read(place)
        if place is None:
            return answer
        return self._read_local(place) if self.root.local else self._read_remote(place)

    def _read_local(self, path: str) -> Answer:
        place = self.root.place(path) if not path.startswith("/") else path
        try:
            full = os.path.realpath(place, strict=True)
            if not self._within(full):
                return None, reasons.OUTSIDE
            # Without O_NONBLOCK a named pipe would wait for a writer for ever.
            handle = os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _MISSING:
                # Where a path that leaves the folder leads is not told, not even that it is empty.
                inside = self._within(os.path.realpath(place))
                return None, reasons.NO_FILE if inside else reasons.OUTSIDE
            if error.errno in _REFUSED:
                return None, reasons.NOT_ALLOWED
            raise
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                return None, reasons.NOT_A_FILE
            if status.st_size > MAX_IMAGE_BYTES:
                return None, reasons.TOO_LARGE
            with open(handle, "rb", closefd=False) as file:
                data = file.read()
        finally:
            os.close(handle)
        return (data, None) if data else (None, reasons.EMPTY_FILE)

    def _within(self, full: str) -> bool:
        return any(full == b or full.startswith(b.rstrip("/") + "/") for b in self._bounds)

    def _read_remote(self, path: str) -> Answer:
        root = self.root
        full = posixpath.normpath(path if path.startswith("/") else f"{root.path}/{path}")
        if not full.startswith(root.path + "/"):
            return None, reasons.OUTSIDE
        try:
            if root.fs.size(full) > MAX_IMAGE_BYTES:
                return None, reasons.TOO_LARGE
            data = root.fs.cat_file(full)
        except (FileNotFoundError, IsADirectoryError):
            return None, reasons.NO_FILE
        except PermissionError:
            return None, reasons.NOT_ALLOWED
        return (data, None) if data else (None, reasons.EMPTY_FILE)

    @cached_property
    def _only_folder(self) -> str | None:
        """The folder that all pictures are right in, where there is one, and not the root itself."""
        folders = {posixpath.dirname(name) for name in self.root.names() if is_image(name)}
        return folders.pop() or None if len(folders) == 1 else None

    @cached_property
    def _alike(self) -> AlikeNames:
        return AlikeNames(self.root.names())

    @cached_property
    def _archives(self) -> Archives:
        return Archives(self.root)


def _blobs(root: Root) -> str | None:
    """Where the files of a snapshot in a cache of the Hugging Face Hub are, which are links there."""
    before, snapshots, _ = root.path.rpartition("/snapshots/")
    blobs = f"{before}/blobs"
    return blobs if root.local and snapshots and os.path.isdir(blobs) else None
