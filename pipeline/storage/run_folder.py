"""A run's folder on this machine, with the URL that it mirrors where the output is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from pipeline.storage.errors import RunLocked
from pipeline.storage.lock import hold
from pipeline.storage.mirror import Mirror


class RunFolder:
    """Where a run works and where others find what it made.

    Parameters
    ----------
    path : Path
        The local folder.
    url : str or None
        The URL that it mirrors; without one, what is sent is where it should be already.
    """

    def __init__(self, path: Path, url: str | None) -> None:
        self.path = path
        self._url = url

    @cached_property
    def mirror(self) -> Mirror | None:
        """The other end, where there is one."""
        return None if self._url is None else Mirror(self._url, self.path)

    @contextmanager
    def hold(self, run_id: str) -> Iterator[None]:
        """Hold the folder, and its URL; see `pipeline.storage.lock.hold` and `Mirror.hold`."""
        with hold(self.path, run_id):
            if self.mirror is None:
                yield
                return
            with self.mirror.hold(run_id):
                yield

    def refresh(self, run_id: str) -> None:
        """Fetch what is new on the URL, unless a run on this machine is at it."""
        if self.mirror is None:
            return
        with suppress(RunLocked), hold(self.path, run_id):
            self.mirror.pull()

    def push(self) -> None:
        """Send what is new here."""
        if self.mirror is not None:
            self.mirror.push()

    def send_shard(
        self, part: str, manifest: str, run_id: str, used: str, within: str = ""
    ) -> None:
        """Send a finished shard; see `Mirror.send_shard`."""
        if self.mirror is not None:
            self.mirror.send_shard(part, manifest, run_id, used, within)

    def send_export(self, folder: Path, name: str, run_id: str) -> None:
        """Send an export as the version that counts; see `ExportVersions.send`."""
        if self.mirror is not None:
            self.mirror.check()
            self.mirror.exports.send(folder, name, run_id)

    def place(self, path: Path) -> str:
        """Where others find a file of the folder."""
        if self.mirror is None:
            return str(path)
        return f"{self.mirror.url}/{path.relative_to(self.path).as_posix()}"

    def export_place(self, name: str) -> str | None:
        """Where others find the version of an export that counts."""
        if self.mirror is None:
            return str(self.path / "exports" / name)
        return self.mirror.exports.url(name)
