"""Ends what a process has started once that process is gone, however it went: run beside it.

`python watchdog.py PID` watches its own parent PID. Who else belongs to it is told by a mark in the
environment, which all that it starts inherit, also what no longer has it as a parent. Run by its path
and by itself: it imports nothing of ours. Where there is no `/proc` it does nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid

MARK = "RAG4DMC_STARTED_BY"
LOOK_SECONDS = 0.5
# What has this long to end by itself.
GRACE_SECONDS = 5.0
PROCESSES = "/proc"

_watched = 0


def watch() -> None:
    """See to it that nothing that this process starts from now on outlives it; once a process."""
    global _watched
    if _watched == os.getpid() or not os.path.isfile(f"{PROCESSES}/self/environ"):
        return
    _watched = os.getpid()
    mark = f"{_watched}-{uuid.uuid4().hex}"
    # Without the mark itself, and out of reach of what a terminal sends to all of a group.
    subprocess.Popen(
        [sys.executable, "-I", "-S", os.path.abspath(__file__), str(_watched), mark],
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ[MARK] = mark


def marked(mark: str) -> list[int]:
    """Processes that were started with a mark in their environment, by whomever."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in filter(str.isdigit, os.listdir(PROCESSES)):
        try:
            with open(f"{PROCESSES}/{name}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(int(name))
        except OSError:  # gone meanwhile, or another user's
            continue
    return found


def end(mark: str) -> None:
    """End all marked processes: politely, then, where that is not enough, at once."""
    deadline = time.monotonic() + GRACE_SECONDS
    asked: set[int] = set()
    while left := marked(mark):
        for process in left:
            late = time.monotonic() > deadline
            if late or process not in asked:
                asked.add(process)
                try:
                    os.kill(process, signal.SIGKILL if late else signal.SIGTERM)
                except OSError:  # gone meanwhile
                    continue
        time.sleep(LOOK_SECONDS / 5)


def main() -> None:
    parent, mark = int(sys.argv[1]), sys.argv[2]
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    end(mark)


if __name__ == "__main__":
    main()
