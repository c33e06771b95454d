"""Exports on a URL, as versions that are swapped in whole.

A store of objects renames no folders. So the files of an export's version never change, and
`exports/NAME/latest.json`, a single object, names the version that counts, once it is whole.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from pipeline.storage.files import write_whole
from pipeline.storage.store import make_folders

POINTER = "latest.json"
# In each export's folder: what it is.
MARK = ".export.json"


class ExportVersions:
    """The exports of a run on a URL.

    Parameters
    ----------
    fs
        An fsspec file system.
    root
        The folder `exports` on it.
    url
        The URL of that folder.
    """

    def __init__(self, fs: Any, root: str, url: str) -> None:
        self._fs = fs
        self._root = root
        self._url = url

    def send(self, folder: Path, name: str, run_id: str) -> str:
        """Send a local export as a version of its own, and let it count; the version's URL.

        A file that was sent with the version before, under whatever name, is copied by the store
        itself. That version stays for those who are reading it; older ones go.
        """
        self._fs.invalidate_cache()
        latest = self._latest(name) or {}
        before = latest.get("version")
        sent = {tuple(stamp): one for one, stamp in latest.get("stamps", {}).items()}
        version = f"{run_id}-{time.time_ns() // 1_000_000:x}"
        place = f"{self._root}/{name}"
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        within = [path.relative_to(folder).as_posix() for path in files]
        places = [f"{place}/{version}/{one}" for one in within]
        make_folders(self._fs, places)
        stamps = {one: _stamp(path) for one, path in zip(within, files, strict=True)}
        known = [sent.get(stamp) for stamp in stamps.values()]
        for one, target in zip(known, places, strict=True):
            if one is not None:
                self._fs.copy(f"{place}/{before}/{one}", target)
        new = [at for at, one in enumerate(known) if one is None]
        self._fs.put([str(files[at]) for at in new], [places[at] for at in new])
        url = f"{self._url}/{name}/{version}"
        told = {"version": version, "url": url, "files": within, "stamps": stamps}
        self._fs.pipe_file(f"{place}/{POINTER}", json.dumps(told, indent=1).encode())
        self._fs.invalidate_cache()
        for old in self._fs.ls(place, detail=False):
            if old.rstrip("/").rpartition("/")[2] not in (POINTER, version, before):
                self._fs.rm(old, recursive=True)
        return url

    def url(self, name: str) -> str | None:
        """Where the version that counts is."""
        return (self._latest(name) or {}).get("url")

    def pull_marks(self, folder: Path) -> None:
        """Fetch of each export the file that says what it is, and no more."""
        for pointer in self._fs.glob(f"{self._root}/*/{POINTER}"):
            name = pointer.split("/")[-2]
            mark = folder / name / MARK
            latest = self._latest(name)
            if latest is not None and not mark.is_file():
                place = f"{self._root}/{name}/{latest['version']}/{MARK}"
                write_whole(mark, self._fs.cat_file(place))

    def _latest(self, name: str) -> dict[str, Any] | None:
        try:
            return json.loads(self._fs.cat_file(f"{self._root}/{name}/{POINTER}"))
        except FileNotFoundError:
            return None


def _stamp(path: Path) -> tuple[int, int, int]:
    """What a file is known by, also under another name: its inode, size and time."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
