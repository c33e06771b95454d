"""Time and memory on a GPU, or on a CPU where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

# What was measured, its value, and its unit.
Figures = Iterator[tuple[str, float, str]]


def seconds(run: Callable[[], Any], times: int = 1) -> float:
    """Seconds of a run, after one that warms up; the GPU is waited for."""
    import torch

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    run()
    wait()
    started = time.perf_counter()
    for _ in range(times):
        run()
    wait()
    return (time.perf_counter() - started) / times


def peak() -> int:
    """Most bytes so far: torch's on a GPU, else this process's."""
    import torch

    from kb.stopwatch import peak_bytes

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_bytes()


def forget_peak() -> None:
    """Count the most bytes on a GPU from here on."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
