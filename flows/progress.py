"""One live view of a run: a bar for each step under way on a terminal, plain lines elsewhere.

Either way a step that is over leaves one line, and what is printed meanwhile stands above the bars.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

# Between two lines of a step where there is no terminal.
LINE_SECONDS = 10.0
ROWS = "complete rows"


@dataclass
class _Step:
    """A step under way."""

    started: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)
    bar: Any = None

    def pace(self, done: int, total: int) -> str:
        """Rate and time left, as far as they can be told."""
        seconds = time.monotonic() - self.started
        if not done or seconds < 1:
            return ""
        rate = done / seconds
        shown = f"{rate:,.1f} a second" if rate >= 1 else f"{1 / rate:,.1f} s each"
        if total and done < total:
            return f"{shown}, {duration((total - done) / rate)} left"
        return f"{shown}, {duration(seconds)}"


class RunView:
    """Shows how far a run is, on standard error; a context manager."""

    def __init__(self) -> None:
        self._live: Any = None
        self._steps: dict[str, _Step] = {}
        self._over: dict[str, int] = {}
        self._outcomes: Counter[str] = Counter()
        self._total = 0

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._live = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(stderr=True),
                refresh_per_second=4,
            )
            self._live.start()
            self._log_above_the_bars()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()
            self._log_above_the_bars()

    def _log_above_the_bars(self) -> None:
        # A handler keeps the stream that it was made with, which knows nothing of the bars.
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stderr)

    def step(self, name: str, done: int, total: int, note: str = "") -> None:
        """A step has come to `done` of `total` (0: unknown)."""
        over = bool(total) and done >= total
        if over and name not in self._steps and self._over.get(name) == total:
            return  # said before
        step = self._steps.setdefault(name, _Step())
        told = "; ".join(part for part in (step.pace(done, total), note, gpu_memory()) if part)
        if over:
            self._over[name] = total
            del self._steps[name]
        if self._live:
            self._draw(step, name, done, total, told, over)
        elif over or time.monotonic() - step.told >= LINE_SECONDS:
            step.told = time.monotonic()
            print(_line(name, done, total, told), file=sys.stderr, flush=True)

    def _draw(self, step: _Step, name: str, done: int, total: int, told: str, over: bool) -> None:
        if over:
            if step.bar is not None:
                self._live.remove_task(step.bar)
            self._live.console.print(
                _line(name, done, total, told), markup=False, highlight=False, soft_wrap=True
            )
            return
        if step.bar is None:
            step.bar = self._live.add_task(name, total=total or None, note="")
        self._live.update(step.bar, completed=done, total=total or None, note=told)

    def rows_expected(self, total: int) -> None:
        """How many rows this run will do."""
        self._total = total
        if total:
            self.step(ROWS, 0, total)

    def rows_done(self, outcomes: dict[str, int]) -> None:
        """Rows that were done just now, by outcome."""
        self._outcomes.update({name: count for name, count in outcomes.items() if count})
        note = ", ".join(f"{count} {name}" for name, count in sorted(self._outcomes.items()))
        self.step(ROWS, self._outcomes.total(), self._total, note)


def gpu_memory() -> str:
    """Memory in use on each GPU that this process works with; nothing where there is none."""
    torch = sys.modules.get("torch")
    # Asking a GPU that nobody uses would take memory itself.
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return ""
    shown = []
    for device in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(device)
        shown.append(f"{(total - free) / 1e9:.1f} of {total / 1e9:.0f} GB")
    return "GPU " + ", ".join(shown)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    Examples
    --------
    >>> duration(9), duration(90), duration(8000), duration(200_000)
    ('9 s', '1:30 min', '2:13 h', '2.3 days')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 86400:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{seconds / 86400:.1f} days"


def _line(name: str, done: int, total: int, told: str) -> str:
    count = f"{done:,} of {total:,}" if total else f"{done:,}"
    return f"{name}: {count}" + (f" ({told})" if told else "")
