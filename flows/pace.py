"""How fast work goes, and how long the rest of it takes: told from what was done and how long it took.

What was there before the work began, and the time that models take to load, count for neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """The pace of one kind of work, from the moment it begins.

    Parameters
    ----------
    lost
        Seconds that this process has spent so far on what is no such work, as loading models.

    Attributes
    ----------
    done : int
        Items done since the work began.
    seconds : float
        What they took; of several workers the sum.
    """

    def __init__(self, lost: Callable[[], float] = lambda: 0.0) -> None:
        self._lost = lost
        self._begun: float | None = None
        self._reported = 0.0
        self._last = 1
        self._workers: set[str] = set()
        self.done = 0
        self.seconds = 0.0

    def begin(self) -> None:
        """The work begins, unless it has."""
        if self._begun is None:
            self._begun = self._now()

    def add(self, count: int) -> None:
        """So many items more are done, by this process alone."""
        self.begin()
        self._add(count, self.spent(), "")

    def add_worker(self, count: int, seconds: float, worker: str) -> None:
        """A worker, one of several, has done so many items more in that time."""
        self.begin()
        self._add(count, self.seconds + seconds, worker)

    def _add(self, count: int, seconds: float, worker: str) -> None:
        self.done += count
        self.seconds = seconds
        self._last = max(1, count)
        self._reported = self._now()
        self._workers.add(worker)

    def spent(self) -> float:
        """Seconds since the work began."""
        return 0.0 if self._begun is None else self._now() - self._begun

    def _now(self) -> float:
        return time.monotonic() - self._lost()

    def each(self) -> float | None:
        """Seconds an item takes a worker; None while nothing is done yet.

        Where the next items are due and have not come, it grows.
        """
        if not self.done:
            return None
        waited = self._now() - self._reported
        late = (self.seconds + waited) / (self.done + self._last)
        return max(self.seconds / self.done, late)

    def told(self, rest: int) -> str:
        """The pace and the time that the rest takes, or what the work took, as far as is known."""
        each, workers = self.each(), len(self._workers)
        if each is None:
            return "" if self._begun is None or self.spent() < 1 else duration(self.spent())
        if self.seconds < 1 and self.spent() < 1:
            return ""
        if not rest:
            each = self.seconds / self.done
        rate = f"{1 / each:,.1f} a second" if each <= 1 else f"{each:,.1f} s each"
        if workers > 1:
            rate += f" and worker, {workers} workers" if each <= 1 else f" on {workers} workers"
        if not rest:
            return f"{rate}, {duration(self.spent())}"
        waited = self._now() - self._reported
        return f"{rate}, {duration(max(0.0, rest * each / workers - waited))} left"


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
