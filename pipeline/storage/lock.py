"""The lock of a run's folder: two runs of one dataset never overlap."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.storage.errors import RunLocked


@contextmanager
def hold(folder: Path, run_id: str) -> Iterator[None]:
    """Hold a run's folder; the lock goes with the process, however it ends.

    Raises
    ------
    RunLocked
        Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "unknown"
            raise RunLocked(f"{folder}: another run holds the lock ({holder})") from None
        os.ftruncate(handle, 0)
        os.write(handle, f"pid {os.getpid()} run {run_id}\n".encode())
        yield
    finally:
        os.close(handle)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait for a file's lock and hold it: one process of a machine at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
