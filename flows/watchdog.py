"""Ends what a process has started once that process is gone, however it went: run beside it.

`python watchdog.py PID MARK` watches its own parent PID. Who belongs to it is told by a mark in the
environment, which all that it starts inherit, and by descent. Run by its path and by itself: it imports
nothing of ours. Where there is no `/proc` it does nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

MARK = "RAG4DMC_STARTED_BY"
LOOK_SECONDS = 0.5
# What has this long to end by itself.
GRACE_SECONDS = 5.0
EMPTY_LOOKS = 5
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


class Family:
    """All that a process has started since its watchdog stands, and what that started in turn.

    A member is known by the mark in its environment, or by a parent who is one; and once known it stays so:
    some processes write their title over their environment (Ray's do), others lose their parent.
    Other watchdogs are no members; they see to families of their own.
    """

    def __init__(self, parent: int, mark: str) -> None:
        self._wanted = f"{MARK}={mark}".encode()
        # With the moments at which they began, since numbers are given again.
        self._members: dict[int, str] = {}
        self._strangers: dict[int, str] = {}
        self._before = {number: moment for number, (_, moment) in _processes()}
        self._head = {parent: self._before.get(parent, "")}

    def look(self, anew: bool = False) -> list[int]:
        """Members that live; with `anew` the environment of those is read too that were strangers before."""
        found = dict(_processes())
        begun = {number: moment for number, (_, moment) in found.items()}
        strangers = {} if anew else self._strangers
        members = _still(self._members, begun)
        new = begun.keys() - members.keys() - _still(strangers, begun).keys()
        members |= {number: begun[number] for number in new if self._is_marked(number)}
        before, head = _still(self._before, begun), _still(self._head, begun)
        while born := {
            number
            for number in begun.keys() - members.keys() - before.keys()
            if found[number][0] in {*head, *members} and not _is_watchdog(number)
        }:
            members |= {number: begun[number] for number in born}
        self._members = members
        self._strangers = {n: moment for n, moment in begun.items() if n not in members}
        return list(members)

    def _is_marked(self, number: int) -> bool:
        return self._wanted in _read(number, "environ").split(b"\0")


def _read(number: int, name: str) -> bytes:
    try:
        with open(f"{PROCESSES}/{number}/{name}", "rb") as file:
            return file.read()
    except OSError:  # gone meanwhile, or another user's
        return b""


def _processes() -> Iterator[tuple[int, tuple[int, str]]]:
    """Numbers of all processes that run, each with its parent's and the moment at which it began."""
    for number in map(int, filter(str.isdigit, os.listdir(PROCESSES))):
        # Of what stands before it, the name may hold anything.
        fields = _read(number, "stat").rpartition(b")")[2].decode().split()
        if fields and fields[0] != "Z":
            yield number, (int(fields[1]), fields[19])


def _still(known: dict[int, str], begun: dict[int, str]) -> dict[int, str]:
    return {number: moment for number, moment in known.items() if begun.get(number) == moment}


def _is_watchdog(number: int) -> bool:
    return os.path.abspath(__file__).encode() in _read(number, "cmdline").split(b"\0")


def end(family: Family) -> None:
    """End all members: politely, then, where that is not enough, at once."""
    deadline = time.monotonic() + GRACE_SECONDS
    asked: set[int] = set()
    # What begins just now may not be seen at the first look.
    empty = 0
    while empty < EMPTY_LOOKS:
        left = family.look(anew=True)
        empty = 0 if left else empty + 1
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
    parent = int(sys.argv[1])
    family = Family(parent, sys.argv[2])
    while os.getppid() == parent:
        family.look()
        time.sleep(LOOK_SECONDS)
    end(family)


if __name__ == "__main__":
    main()
