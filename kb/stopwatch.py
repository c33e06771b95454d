"""Time and memory of a build's steps, for the manifest and the log."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


class Stopwatch:
    """Records each step's seconds and processor time, and the process's peak memory by its end.

    Attributes
    ----------
    steps : list of dict
        step, seconds, cpu_seconds (over all threads), peak_bytes (highest resident size of the process so far).
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float | int | str]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times the block under `name`."""
        start, cpu = time.perf_counter(), time.process_time()
        yield
        seconds = time.perf_counter() - start
        self.steps.append(
            {
                "step": name,
                "seconds": round(seconds, 3),
                "cpu_seconds": round(time.process_time() - cpu, 3),
                "peak_bytes": peak_bytes(),
            }
        )
        logger.info("knowledge base: %s took %.1f s", name, seconds)


def peak_bytes() -> int:
    """Highest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
