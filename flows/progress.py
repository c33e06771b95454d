"""One live view of a run: steps and rows with their rate on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType
from typing import Any, Self

LINE_SECONDS = 10.0


class RunView:
    """Shows how far a run is; a context manager.

    Parameters
    ----------
    shown : bool
        False shows nothing.
    """

    def __init__(self, shown: bool = True) -> None:
        self._shown = shown
        self._live: Any = None
        self._bars: dict[str, Any] = {}
        self._outcomes: Counter[str] = Counter()
        self._last_line: dict[str, float] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if self._shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._live = Progress(
                TextColumn("{task.description:<18}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def step(self, name: str, done: int, total: int, note: str = "") -> None:
        """A step has come to `done` of `total` (0: unknown)."""
        if self._live:
            if name not in self._bars:
                self._bars[name] = self._live.add_task(name, total=total or None, note=note)
            self._live.update(
                self._bars[name], completed=done, total=total or done or None, note=note
            )
        elif self._shown:
            now = time.monotonic()
            over = bool(total) and done >= total
            if over or now - self._last_line.get(name, self._started) >= LINE_SECONDS:
                self._last_line[name] = now
                of = f" of {total}" if total else ""
                print(f"{name}: {done}{of}{'  ' + note if note else ''}", file=sys.stderr)

    def rows_expected(self, total: int) -> None:
        """How many rows this run will do."""
        self._total = total
        if total:
            self.step("complete rows", 0, total)

    def rows_done(self, outcomes: dict[str, int]) -> None:
        """Rows that were done just now, by outcome."""
        self._outcomes.update(outcomes)
        note = ", ".join(f"{count} {name}" for name, count in sorted(self._outcomes.items()))
        self.step("complete rows", self._outcomes.total(), self._total, note)
