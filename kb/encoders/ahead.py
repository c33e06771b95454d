"""Work that is done ahead of whoever takes its results, in threads, in order and within bounds."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, held: int
) -> Iterator[Result]:
    """The results of `work` on items, in their order.

    Items are read in the thread that takes the results, one for each that it takes, so that
    whatever they are read from belongs to one thread. Pillow, NumPy and torch let go of the
    interpreter while they decode, scale and copy: threads use all cores for pictures.

    Parameters
    ----------
    work : callable
        Called in threads. Its error is raised where its result would stand.
    items : iterable
    threads : int
    held : int
        Items that are waiting, in work, or done and not taken yet, at most.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= held:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
