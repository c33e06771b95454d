"""A run's folder on a URL: worked on in a local folder, which mirrors it.

Memory maps, faiss and flock need local files, so a run works locally and sends what is finished. The
URL is the truth: at the start the local folder is made equal to it, but for caches, which only gain.
A file is the same in both places when its size agrees and its modification time is the object's,
which is why each transfer sets that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.storage.errors import ConfigError, RunFailed
from pipeline.storage.files import beside, write_whole
from pipeline.storage.lease import LEASES, Lease
from pipeline.storage.lock import alone
from pipeline.storage.store import make_folders, same, stamp
from pipeline.storage.versions import ExportVersions

MARK = ".mirror"
PULLING = ".pulling"
EXPORTS = "exports"

# Only grow, and are worth keeping where they are ahead of the URL.
_CACHES = ("embeddings", "catalog")
_LOCAL = ("lock", "plan", "candidates.sqlite", "candidates.sqlite-journal", EXPORTS)
# What refers to other files is sent after them, and removed before them; what is not named is first.
_ORDER = (
    "summaries",
    "history",
    "completed",
    "embeddings",
    "catalog",
    "kb",
    "kb/manifest.json",
    "standards.json",
    "kb-inputs.json",
    "ledger",
    "report",
    "summary.json",
    "config.yaml",
    "presented.json",
)
_KEYS_FILE = "keys.bin"


class Mirror:
    """A URL and the local folder that mirrors it.

    Parameters
    ----------
    url
        Any fsspec URL of a folder.
    folder
        Local, of this run alone: what is not on the URL is removed from it.
    """

    def __init__(self, url: str, folder: Path) -> None:
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        self.folder = folder
        try:
            self._fs, root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"output: {url!r} can't be opened: {error}") from None
        self._root = root.rstrip("/")
        self.exports = ExportVersions(self._fs, f"{self._root}/{EXPORTS}", f"{self.url}/{EXPORTS}")
        self._lease: Lease | None = None

    @contextmanager
    def hold(self, run_id: str) -> Iterator[None]:
        """Hold the URL for a run: pull before, push after.

        Raises
        ------
        RunLocked
            Another run holds it.
        """
        self._reach()
        with Lease(self._fs, f"{self._root}/{LEASES}", run_id, self.url) as lease:
            self._lease = lease
            try:
                self.pull()
                yield
                self.push()
            finally:
                self._lease = None

    def pull(self, names: Sequence[str] | None = None) -> None:
        """Make the local folder equal to the URL.

        Parameters
        ----------
        names
            Only these, each a file or folder right below; None for all.
        """
        self._reach()
        # Workers of one machine share its folder.
        with alone(self.folder / PULLING):
            self._pull(names)

    def _pull(self, names: Sequence[str] | None) -> None:
        self._claim()
        remote = self._remote(names)
        local = self._local(names)
        ahead = _ahead(remote, local)
        wanted = [
            name
            for name, detail in remote.items()
            if not same(local.get(name), detail) and not name.startswith(ahead)
        ]
        for name in local.keys() - remote.keys():
            if _top(name) not in _CACHES:
                (self.folder / name).unlink()
        scratch = [beside(self.folder / name) for name in wanted]
        for path in scratch:
            path.parent.mkdir(parents=True, exist_ok=True)
        if wanted:
            self._fs.get([f"{self._root}/{name}" for name in wanted], list(map(str, scratch)))
        for name, path in zip(wanted, scratch, strict=True):
            stamp(path, remote[name])
            os.replace(path, self.folder / name)
        if names is None:
            self.exports.pull_marks(self.folder / EXPORTS)

    def push(self, names: Sequence[str] | None = None) -> None:
        """Make the URL equal to the local folder: data before what refers to it.

        Raises
        ------
        RunFailed
            Another run has taken the URL over.
        """
        self.check()
        remote, local = self._remote(names), self._local(names)
        changed = {name for name, status in local.items() if not same(status, remote.get(name))}
        # Opening a store of embeddings touches its files; only its growth is new.
        changed -= {name for name in changed if name.startswith(_ahead(local, remote))}
        if any(name.startswith("kb/") for name in changed) and "kb-inputs.json" in remote:
            # Until the last file of the new knowledge base is there, it counts as stale.
            self._fs.rm_file(f"{self._root}/kb-inputs.json")
            if "kb-inputs.json" in local:
                changed.add("kb-inputs.json")
        for _, group in _groups(changed):
            self.send(group)
        gone = {name for name in remote.keys() - local.keys() if _top(name) not in _CACHES}
        for _, group in reversed(_groups(gone)):
            self.check()
            self._fs.rm([f"{self._root}/{name}" for name in group])

    def send(self, names: Sequence[str]) -> None:
        """Send some files, in this order where they are handed over one by one.

        Raises
        ------
        RunFailed
            Another run has taken the URL over.
        """
        self.check()
        places = [f"{self._root}/{name}" for name in names]
        make_folders(self._fs, places)
        self._fs.put([str(self.folder / name) for name in names], places)
        self._fs.invalidate_cache()
        for name, place in zip(names, places, strict=True):
            stamp(self.folder / name, self._fs.info(place))

    def send_shard(
        self, part: str, manifest: str, run_id: str, used: str, within: str = ""
    ) -> None:
        """Send a finished shard from whatever process did it: its part, then its manifest.

        With it goes what the process has used so far, where there is such a file.

        A worker keeps no copy: the run that plans the shards fetches them in the end. They lie `within` a
        folder of the run's, named with its slash.

        Raises
        ------
        RunFailed
            The run that the shard belongs to no longer holds the URL.
        """
        worker = self._lease is None
        if worker:
            holder = Lease(self._fs, f"{self._root}/{LEASES}", run_id, self.url).holder()
            if holder != run_id:
                raise RunFailed(f"{self.url}: run {run_id} does not hold the lock any more")
        done = [f"{within}completed/{part}", f"{within}ledger/{manifest}"]
        for name in (*done, f"ledger/{used}"):
            if (self.folder / name).is_file():
                self.send([name])
        if worker:
            for name in reversed(done):
                (self.folder / name).unlink()

    def _reach(self) -> None:
        """See that the store answers: libraries of stores have errors of many classes.

        Raises
        ------
        RunFailed
            It does not, or not to us.
        """
        try:
            self._fs.ls(self._root)
        except FileNotFoundError:
            return
        except Exception as error:
            raise RunFailed(f"output: {self.url} can't be reached: {error}") from error

    def check(self) -> None:
        """Refuse to write once another run has taken the URL over."""
        if self._lease is not None:
            self._lease.check()

    def read(self, name: str) -> bytes:
        """A file of the URL."""
        return self._fs.cat_file(f"{self._root}/{name}")

    def _claim(self) -> None:
        """See that the local folder is ours, since a pull removes what is not on the URL."""
        mark = self.folder / MARK
        if mark.is_file():
            owner = mark.read_text(encoding="utf-8").strip()
            if owner == self.url:
                return
            raise ConfigError(f"working_folder: {self.folder} is that of {owner}; name another")
        if any(path.name not in ("lock", PULLING) for path in self.folder.iterdir()):
            raise ConfigError(f"working_folder: {self.folder} holds other files; name another")
        write_whole(mark, self.url + "\n")

    def _remote(self, names: Sequence[str] | None) -> dict[str, dict[str, Any]]:
        """Files on the URL by relative name."""
        self._fs.invalidate_cache()
        found: dict[str, dict[str, Any]] = {}
        for start in [""] if names is None else names:
            try:
                listed = self._fs.find(f"{self._root}/{start}".rstrip("/"), detail=True)
            except FileNotFoundError:
                continue
            for path, detail in listed.items():
                name = path[len(self._root) :].strip("/")
                if _top(name) not in (LEASES, *_LOCAL) or (names and _top(name) in names):
                    found[name] = detail
        return found

    def _local(self, names: Sequence[str] | None) -> dict[str, os.stat_result]:
        """Local files by relative name, but for what is being written."""
        found = {}
        for start in [self.folder] if names is None else [self.folder / name for name in names]:
            for path in [start] if start.is_file() else start.rglob("*"):
                name = path.relative_to(self.folder).as_posix()
                hidden = any(part.startswith(".") for part in name.split("/"))
                between = _top(name).endswith((".building", ".retired"))
                if hidden or between or (names is None and _top(name) in _LOCAL):
                    continue
                if path.is_file():
                    found[name] = path.stat()
        return found


def _ahead(here: Mapping[str, Any], there: Mapping[str, Any]) -> tuple[str, ...]:
    """Folders of embeddings, which only grow, that hold as much there as here, or more."""
    return tuple(
        name.removesuffix(_KEYS_FILE)
        for name in here
        if name.endswith(f"/{_KEYS_FILE}")
        and name in there
        and _size(there[name]) >= _size(here[name])
    )


def _size(found: os.stat_result | Mapping[str, Any]) -> int:
    return found.st_size if isinstance(found, os.stat_result) else int(found["size"])


def _top(name: str) -> str:
    return name.partition("/")[0]


def _rank(name: str) -> int:
    if name in _ORDER:
        return _ORDER.index(name)
    return _ORDER.index(_top(name)) if _top(name) in _ORDER else -1


def _groups(names: Iterable[str]) -> list[tuple[int, list[str]]]:
    """Names by their rank, the lowest first."""
    groups: dict[int, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(_rank(name), []).append(name)
    return sorted(groups.items())
