"""One live view of a run: a bar for each step under way on a terminal, plain lines elsewhere.

Either way a step that is over leaves one line, and what is printed meanwhile stands above the bars.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from flows.pace import Pace, duration

# Between two lines of a step where there is no terminal.
LINE_SECONDS = 10.0
# The same, of a step that has not moved.
STILL_SECONDS = 60.0


@dataclass
class _Step:
    """A step under way."""

    pace: Pace
    before: int
    told: float = field(default_factory=time.monotonic)
    done: int = 0
    total: int = 0
    note: str = ""
    printed: int = -1
    reports: int = 0
    bar: Any = None

    def report(self, done: int, total: int, note: str) -> None:
        """The step has come so far."""
        if self.before >= 0 and (more := done - self.before - self.pace.done) > 0:
            self.pace.add(more)
        self.done, self.total, self.note = done, total, note
        self.reports += 1

    def tells(self) -> str:
        """Pace, time left and note, as they are now."""
        # One thing that is done has no pace.
        pace = (
            duration(self.pace.spent())
            if self.total == 1
            else self.pace.told(max(0, self.total - self.done))
        )
        return "; ".join(part for part in (pace, self.note, gpu_memory()) if part)


class RunView:
    """Shows how far a run is, on standard error; a context manager."""

    def __init__(self) -> None:
        self._live: Any = None
        self._steps: dict[str, _Step] = {}
        self._over: dict[str, int] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                ProgressColumn,
                Task,
                TextColumn,
            )
            from rich.text import Text

            class Tells(ProgressColumn):
                """What a step tells, drawn anew while nothing is reported too."""

                def render(self, task: Task) -> Text:
                    return Text(task.fields["step"].tells())

            self._live = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                Tells(),
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

    def step(
        self, name: str, done: int, total: int, note: str = "", pace: Pace | None = None
    ) -> None:
        """A step has come to `done` of `total` (0: unknown).

        Its pace is that of what comes after the first report, unless another is given.
        """
        over = bool(total) and done >= total
        if over and name not in self._steps and self._over.get(name) == total:
            return  # said before
        step = self._steps.get(name)
        if step is None:
            step = self._steps[name] = _Step(pace or Pace(), -1 if pace else done)
            if pace is None:
                step.pace.begin()
        step.report(done, total, note)
        if over:
            self._over[name] = total
            del self._steps[name]
        if self._live:
            self._draw(step, name, over)
        elif over or self._due(step):
            step.told, step.printed = time.monotonic(), done
            print(_line(name, step), file=sys.stderr, flush=True)

    @staticmethod
    def _due(step: _Step) -> bool:
        """Whether a step under way gets a line; one of which nothing is known, as soon as it lasts."""
        if step.reports > 1 and step.printed < 0 and not step.total and not step.done:
            return True
        waited = time.monotonic() - step.told
        moved = not step.total or max(step.printed, 0) != step.done
        return waited >= (LINE_SECONDS if moved else STILL_SECONDS)

    def _draw(self, step: _Step, name: str, over: bool) -> None:
        if over:
            if step.bar is not None:
                self._live.remove_task(step.bar)
            self._live.console.print(
                _line(name, step), markup=False, highlight=False, soft_wrap=True
            )
            return
        if step.bar is None:
            step.bar = self._live.add_task(name, total=step.total or None, step=step)
        self._live.update(step.bar, completed=step.done, total=step.total or None)


def gpu_memory() -> str:
    """Memory in use on each GPU that this process works with; nothing where there is none."""
    torch = sys.modules.get("torch")
    # A load may be importing it at this moment.
    if torch is None or getattr(torch.__spec__, "_initializing", False):
        return ""
    # Asking a GPU that nobody uses would take memory itself.
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return ""
    shown = []
    for device in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(device)
        shown.append(f"{(total - free) / 1e9:.1f} of {total / 1e9:.0f} GB")
    return "GPU " + ", ".join(shown)


def _line(name: str, step: _Step) -> str:
    told = step.tells()
    if step.total == 1:
        return f"{name}: {told}"
    if not step.done and not step.total:
        return f"{name}: {told}" if told else f"{name} …"
    count = f"{step.done:,}" + (f" of {step.total:,}" if step.total else "")
    return f"{name}: {count}" + (f" ({told})" if told else "")
