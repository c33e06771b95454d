"""Which rows the generators of a test's runs were asked for, by which process, told by a file.

`LOG` names the folder that the file lies in. A line is on disk before its row is answered, so that
it outlives a process that is killed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

LOG = "RAG4DMC_TEST_LOG"
FILE = "calls.txt"


def note(row_id: str) -> None:
    """Add a row."""
    if folder := os.environ.get(LOG):
        with open(Path(folder) / FILE, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {row_id}\n")
            file.flush()
            os.fsync(file.fileno())


def calls(folder: Path) -> list[tuple[int, str]]:
    """Process and row of each call so far, in order."""
    path = folder / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [(int(pid), row_id) for pid, row_id in (line.split(" ", 1) for line in lines)]


def wait_for_calls(folder: Path, count: int = 1, seconds: float = 300) -> None:
    """Wait until so many rows have been asked for."""
    deadline = time.monotonic() + seconds
    while len(calls(folder)) < count:
        assert time.monotonic() < deadline, f"fewer than {count} calls within {seconds:.0f} s"
        time.sleep(0.01)
