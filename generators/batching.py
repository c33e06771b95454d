"""Work through jobs in batches that shrink when memory runs out, and let a bad job fail alone.

The batch of the device has nothing to do with the shard of the run: it's counted in candidates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from generators.base import Candidate, CaptionRequest, Generated, ImageRequest
from generators.device import is_lost, is_out_of_memory, release_memory

logger = logging.getLogger(__name__)

# Batches in a row that fit before twice as many are tried again; after each try in vain, twice these.
BATCHES_BEFORE_MORE = 8

Job = TypeVar("Job")
Result = TypeVar("Result")


class Failed(Exception):
    """Why a job has no result; stands in the results in its place."""


class OutOfMemory(Failed):
    """A single job does not fit."""


class NotFinite(Failed):
    """The model gave scores that are not finite: none of them says anything."""


class JobError(Failed):
    """The job's own error, the cause: others of its batch gave a result."""


class BatchRunner(Generic[Job, Result]):
    """Runs a function over jobs, ``batch_size`` at a time.

    On out-of-memory the batch is halved and tried again, down to one job; a single job that does not
    fit is answered with `OutOfMemory` and the others go on. What fitted is remembered for the
    batches to come, so that a run does not walk into the same wall at every batch; after some that
    fitted twice as many are tried again, since a GPU may have been short of memory for a moment
    alone. After any other error the jobs of the batch are tried one by one, so that it fails those
    alone that it comes of.

    Parameters
    ----------
    work : callable
        Takes a list of jobs, returns as many results in their order, any of which may be `Failed`.
    batch_size : int
        Most jobs in one call of ``work``.
    """

    def __init__(self, work: Callable[[list[Job]], list[Result | Failed]], batch_size: int) -> None:
        self.work = work
        self.most = self.limit = batch_size
        self._worked = False
        self._fitted = 0
        self._wait = BATCHES_BEFORE_MORE

    def run(self, jobs: Sequence[Job], together: int = 1) -> list[Result | Failed]:
        """Results of all jobs, in order.

        Parameters
        ----------
        jobs : sequence
        together : int
            Jobs that follow each other and share work, such as the candidates of one row: batches
            end where such a group does, as long as a whole one fits.

        Raises
        ------
        Exception
            That of the first job, when none of more than ``together`` jobs has a result and none
            ever had: then it isn't the jobs.
        """
        results: list[Result | Failed] = []
        while len(results) < len(jobs):
            size = self.limit - self.limit % together if self.limit >= together else self.limit
            batch = list(jobs[len(results) : len(results) + size])
            answer = self._attempt(batch)
            if answer is not None:
                results.extend(answer)
                self._fits(len(batch))
            elif len(batch) == 1:
                results.append(OutOfMemory("out of memory with a single candidate in the batch"))
            else:
                self._halve(len(batch))
        self._worked |= any(not isinstance(result, Failed) for result in results)
        errors = [result for result in results if isinstance(result, JobError)]
        if errors and not self._worked and len(errors) == len(jobs) > together:
            raise errors[0].__cause__ or errors[0]
        return results

    def _halve(self, size: int) -> None:
        """So many did not fit."""
        if self._fitted == 0 and self.limit < self.most:
            self._wait *= 2
        self.limit, self._fitted = max(1, size // 2), 0
        logger.warning(
            "out of memory with %d candidates in a batch; going on with %d", size, self.limit
        )

    def _fits(self, size: int) -> None:
        """A batch of so many did; one that is not full says nothing of a larger one."""
        if self.limit >= self.most or size < self.limit:
            return
        self._fitted += 1
        if self._fitted >= self._wait:
            self.limit, self._fitted = min(self.most, 2 * self.limit), 0
            logger.info("trying batches of %d candidates again", self.limit)

    def _attempt(self, batch: list[Job]) -> list[Result | Failed] | None:
        """Results of one batch, or None when memory ran out.

        The error is dropped before the memory is released: its traceback holds every tensor of the
        frames that it came through.
        """
        try:
            results = self.work(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                if is_lost(error):
                    raise
                return [_failed(error)] if len(batch) == 1 else self._one_by_one(batch)
        else:
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} jobs gave {len(results)} results")
            return results
        release_memory()
        return None

    def _one_by_one(self, batch: list[Job]) -> list[Result | Failed]:
        logger.warning("an error with %d candidates in a batch; they go one by one", len(batch))
        results: list[Result | Failed] = []
        for job in batch:
            answer = self._attempt([job])
            results += answer or [OutOfMemory("out of memory with a single candidate in the batch")]
        return results


def _failed(error: Exception) -> JobError:
    told = " ".join(str(error).split()) or "no message"
    failed = JobError(f"{type(error).__name__}: {told}")
    failed.__cause__ = error
    return failed


def collect(row_id: str, results: Sequence[Candidate | Failed]) -> Generated:
    """One row's answer: its candidates, and why where one of them could not be made."""
    candidates = tuple(result for result in results if isinstance(result, Candidate))
    errors = [str(result) for result in results if isinstance(result, Failed)]
    return Generated(row_id, candidates, errors[0] if errors else None)


def seeds_together(requests: Sequence[CaptionRequest] | Sequence[ImageRequest]) -> int:
    """Candidates of every request where they all want as many, else 1: what belongs together."""
    counts = {len(request.seeds) for request in requests}
    return max(1, counts.pop()) if len(counts) == 1 else 1
