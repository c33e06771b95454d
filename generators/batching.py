"""Work through jobs in batches that shrink when memory runs out.

The batch of the device has nothing to do with the shard of the run: it's counted in candidates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from generators.base import Candidate, CaptionRequest, Generated, ImageRequest
from generators.device import is_out_of_memory, release_memory

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")


class OutOfMemory(Exception):
    """A single job does not fit; stands in the results in its place."""


class BatchRunner(Generic[Job, Result]):
    """Runs a function over jobs, ``batch_size`` at a time.

    On out-of-memory the batch is halved and tried again, down to one job; a single job that does not
    fit is answered with `OutOfMemory` and the others go on. What fitted is remembered for the
    batches to come, so that a run does not walk into the same wall at every batch.

    Parameters
    ----------
    work : callable
        Takes a list of jobs, returns as many results in their order.
    batch_size : int
        Most jobs in one call of ``work``.
    """

    def __init__(self, work: Callable[[list[Job]], list[Result]], batch_size: int) -> None:
        self.work = work
        self.limit = batch_size

    def run(self, jobs: Sequence[Job], together: int = 1) -> list[Result | OutOfMemory]:
        """Results of all jobs, in order.

        Parameters
        ----------
        jobs : sequence
        together : int
            Jobs that follow each other and share work, such as the candidates of one row: batches
            end where such a group does, as long as a whole one fits.
        """
        results: list[Result | OutOfMemory] = []
        while len(results) < len(jobs):
            size = self.limit - self.limit % together if self.limit >= together else self.limit
            batch = list(jobs[len(results) : len(results) + size])
            answer = self._attempt(batch)
            if answer is not None:
                results.extend(answer)
            elif len(batch) == 1:
                results.append(OutOfMemory("out of memory with a single candidate in the batch"))
            else:
                self.limit = max(1, len(batch) // 2)
                logger.warning(
                    "out of memory with %d candidates in a batch; going on with %d",
                    len(batch),
                    self.limit,
                )
        return results

    def _attempt(self, batch: list[Job]) -> list[Result] | None:
        """Results of one batch, or None when memory ran out.

        The error is dropped before the memory is released: its traceback holds every tensor of the
        frames that it came through.
        """
        try:
            results = self.work(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} jobs gave {len(results)} results")
            return results
        release_memory()
        return None


def collect(row_id: str, results: Sequence[Candidate | OutOfMemory]) -> Generated:
    """One row's answer: its candidates, or an error when one of them found no memory."""
    candidates = tuple(result for result in results if isinstance(result, Candidate))
    if len(candidates) == len(results):
        return Generated(row_id, candidates)
    error = next(result for result in results if isinstance(result, OutOfMemory))
    return Generated(row_id, error=str(error))


def seeds_together(requests: Sequence[CaptionRequest] | Sequence[ImageRequest]) -> int:
    """Candidates of every request where they all want as many, else 1: what belongs together."""
    counts = {len(request.seeds) for request in requests}
    return max(1, counts.pop()) if len(counts) == 1 else 1
