"""How many threads compute: one where there is little to compute, else as many as the machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# Pairs up to which a build computes in one thread.
FEW_PAIRS = 4000


@contextmanager
def threads_for(pairs: int) -> Iterator[None]:
    """Compute in one thread while the block runs, where there are few pairs.

    What is computed of them takes microseconds to milliseconds a step, and each step that is shared ends
    when the last thread has had its turn: on a machine with other work that is its scheduler's time slice
    (60 + 120 pairs of 512 dimensions took 341 s, 119 of them of the processor, for 48 and 18 in one
    thread; two cores under a load of 7. 200 + 1,119 pairs of 192 dimensions took 320 s, 303 of them of
    the processor, beside a process that went before them, 56 s when they went before it, and 31 s in one
    thread).
    """
    if pairs > FEW_PAIRS:
        yield
        return
    import torch

    # Comes with scikit-learn, and limits what NumPy and SciPy compute with.
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
