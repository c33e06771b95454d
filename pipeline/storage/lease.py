"""The lock of a run on a URL: a lease that its holder renews, and that goes stale when it can't.

Each lease is an object of its own, `lease/NUMBER.json`, and the highest number holds. It is made by a
conditional write, so that of two runs which want the next number one gets it. Nothing that another
run wrote is ever overwritten, and a run that looks again after its write knows whether it holds.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Self

from pipeline.storage.errors import RunFailed, RunLocked
from pipeline.storage.store import make_folders

logger = logging.getLogger(__name__)

LEASES = "lease"
LEASE_SECONDS = 300.0
RENEW_SECONDS = 30.0


class Lease:
    """Holds a URL; a context manager.

    Parameters
    ----------
    fs
        An fsspec file system.
    folder
        Where the leases lie on it.
    owner
        Id of the run.
    url
        For messages.
    seconds
        A lease that was not renewed for so long is stale. The clocks of all machines must agree
        to well within this.
    """

    def __init__(
        self, fs: Any, folder: str, owner: str, url: str, seconds: float = LEASE_SECONDS
    ) -> None:
        self._fs = fs
        self._folder = folder
        self._url = url
        self.owner = owner
        self.seconds = seconds
        self._number = 0
        self._renewed = 0.0
        self._stop = threading.Event()
        self._lost: str | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        number, standing = self._latest()
        if standing is not None and not self._stale(standing):
            age = time.time() - standing["renewed"]
            raise RunLocked(
                f"{self._url}: another run holds the lock ({standing['owner']} on"
                f" {standing['host']}, pid {standing['pid']}, renewed {age:.0f} s ago)"
            )
        if standing is not None and not standing["released"]:
            logger.warning(
                "%s: run %s was cut off; its lock is stale", self._url, standing["owner"]
            )
        self._number = number + 1
        make_folders(self._fs, [f"{self._folder}/"])
        try:
            self._write("create")
        except FileExistsError:
            raise RunLocked(f"{self._url}: another run has just taken the lock") from None
        if self._latest()[0] != self._number:
            raise RunLocked(f"{self._url}: another run has just taken the lock")
        for name, old in self._names():
            if old < self._number:
                self._fs.rm_file(name)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._lost is None:
            try:
                self._write("overwrite", released=True)
            except OSError as failure:
                logger.warning("%s: the lock is left to go stale: %s", self._url, failure)

    def check(self) -> None:
        """Refuse to go on once the lease is lost.

        Raises
        ------
        RunFailed
            Another run holds the URL, or this one could not renew its lease in time.
        """
        if self._lost is None and time.time() - self._renewed > self.seconds / 2:
            self._lost = "it could not be renewed"
        if self._lost is not None:
            raise RunFailed(f"{self._url}: the lock was lost ({self._lost}); run again")

    def holder(self) -> str | None:
        """The run that holds the URL now."""
        standing = self._latest()[1]
        return None if standing is None or standing["released"] else standing["owner"]

    def _renew(self) -> None:
        while not self._stop.wait(min(RENEW_SECONDS, self.seconds / 10)):
            try:
                number, standing = self._latest()
                if number > self._number and standing is not None:
                    self._lost = f"run {standing['owner']} has taken it"
                    return
                self._write("overwrite")
            except Exception as error:  # `check` decides by the time of the last good renewal
                logger.warning("%s: the lock was not renewed: %s", self._url, error)

    def _write(self, mode: str, released: bool = False) -> None:
        now = time.time()
        told = {
            "owner": self.owner,
            "host": os.uname().nodename,
            "machine": machine(),
            "pid": os.getpid(),
            "renewed": now,
            "seconds": self.seconds,
            "released": released,
        }
        place = f"{self._folder}/{self._number:012d}.json"
        self._fs.pipe_file(place, json.dumps(told).encode(), mode=mode)
        self._renewed = now

    def _names(self) -> list[tuple[str, int]]:
        self._fs.invalidate_cache()
        try:
            names = self._fs.ls(self._folder, detail=False)
        except FileNotFoundError:
            return []
        return [(name, int(Path(name).stem)) for name in names if name.endswith(".json")]

    def _latest(self) -> tuple[int, dict[str, Any] | None]:
        """The highest number and what stands there."""
        while names := self._names():
            name, number = max(names, key=lambda held: held[1])
            try:
                return number, json.loads(self._fs.cat_file(name))
            except FileNotFoundError:
                continue  # a newer lease has come and cleared this one away
        return 0, None

    @staticmethod
    def _stale(standing: dict[str, Any]) -> bool:
        """Released, not renewed in time, or left by a dead process of this machine."""
        if standing["released"] or time.time() - standing["renewed"] > standing["seconds"]:
            return True
        return standing["machine"] == machine() and not Path(f"/proc/{standing['pid']}").exists()


def machine() -> str:
    """This boot of this machine, and the space that process ids count in."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown {os.uname().nodename} {os.getpid()}"
