"""Warnings that our packages log while a run is under way, kept for whoever reads its result.

A log is read by those who watch; a run at night has nobody who does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

PACKAGES = ("kb", "generators", "selection", "pipeline")
# Of warnings that differ only by what they are about, as many as these are told in words.
ALIKE = 3


class _Told(logging.LogRecord):
    """A warning that another process has put into words."""

    def __init__(self, name: str, kind: str, told: str) -> None:
        super().__init__(name, logging.WARNING, "", 0, kind, None, None)
        self._told = told

    def getMessage(self) -> str:  # noqa: N802
        return self._told


def pass_on(found: Iterable[Sequence[str]]) -> None:
    """Log in this process what `Warned.found` says of another."""
    for name, kind, told in found:
        logging.getLogger(name).handle(_Told(name, kind, told))


class Warned(logging.Handler):
    """Collects warnings; a context manager. May be entered again, and within itself."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._entered = 0
        self._found: dict[tuple[str, str], list[str]] = {}
        self._more: dict[tuple[str, str], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning, once."""
        kind = (record.name, str(record.msg))
        found = self._found.setdefault(kind, [])
        told = " ".join(record.getMessage().split())
        if told in found:
            return
        if len(found) < ALIKE:
            found.append(told)
        else:
            self._more[kind] = self._more.get(kind, 0) + 1

    def __enter__(self) -> Self:
        self._entered += 1
        for name in PACKAGES if self._entered == 1 else ():
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered -= 1
        for name in PACKAGES if not self._entered else ():
            logging.getLogger(name).removeHandler(self)

    def found(self) -> list[tuple[str, str, str]]:
        """The warnings that are told in words: who logs them, of which kind, and each itself."""
        return [(*kind, told) for kind, found in self._found.items() for told in found]

    def told(self) -> list[str]:
        """The warnings so far, in the order in which their kinds first came."""
        lines = []
        for kind, found in self._found.items():
            lines += found
            if more := self._more.get(kind):
                lines.append(f"… and {more} more like the last")
        return lines
