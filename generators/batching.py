"""Work through jobs in batches that shrink when memory runs out, and let a bad job fail alone.

The batch of the device has nothing to do with the shard of the run: it's counted in candidates.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Generic, Literal, TypeVar

from generators.base import Candidate, CaptionRequest, Generated, ImageRequest
from generators.device import (
    Peak,
    free_memory,
    is_lost,
    is_out_of_memory,
    release_memory,
    resolve_device,
)

logger = logging.getLogger(__name__)

# Batches in a row that fit before twice as many are tried again; after each try in vain, twice these.
BATCHES_BEFORE_MORE = 8

# Candidates in the first batch of an unknown size, the share of the free memory that the others may
# take by its measure, and the most that still gain something, on a GPU and on a CPU.
PROBED = 4
SHARE_OF_FREE = 0.8
MOST_ON_GPU = 64
MOST_ON_CPU = 16

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
    batch_size : int or "auto"
        Most jobs in one call of ``work``; ``auto`` is found by what a first small batch takes of
        the memory that is free, a power of two so that little changes it.
    device : str
        Where the work is done, for ``auto``.
    """

    def __init__(
        self,
        work: Callable[[list[Job]], list[Result | Failed]],
        batch_size: int | Literal["auto"],
        device: str = "auto",
    ) -> None:
        self.work = work
        self.device = device
        self.probing = batch_size == "auto"
        self.most = self.limit = PROBED if batch_size == "auto" else batch_size
        self._worked = False
        self._fitted, self._trying = 0, False
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
            answer = self._probe(batch) if self.probing else self._attempt(batch)
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

    def _probe(self, batch: list[Job]) -> list[Result | Failed] | None:
        """Results of a first batch, or None when memory ran out; sets how many go at once."""
        device = resolve_device(self.device)
        with Peak(device) as peak:
            answer = self._attempt(batch)
        if answer is None:
            return None
        self.probing = False
        most = MOST_ON_GPU if device.type == "cuda" else MOST_ON_CPU
        each = peak.bytes / len(batch)
        free = free_memory(device)
        # Where neither is known, the first batch's size has been found to fit.
        fitting = SHARE_OF_FREE * free / each if each and free else PROBED
        self.most = self.limit = 1 << int(math.log2(max(1.0, min(most, fitting))))
        logger.info(
            "batches of %d candidates: one takes %.0f MB, %.1f GB are free",
            self.limit,
            each / 1e6,
            free / 1e9,
        )
        return answer

    def _halve(self, size: int) -> None:
        """So many did not fit."""
        if self._trying:
            self._wait *= 2
        self.limit, self._fitted, self._trying = max(1, size // 2), 0, False
        logger.warning(
            "out of memory with %d candidates in a batch; going on with %d", size, self.limit
        )

    def _fits(self, size: int) -> None:
        """A batch of so many did; one that is not full says nothing of a larger one."""
        if size < self.limit:
            return
        if self._trying:
            self._trying, self._wait = False, BATCHES_BEFORE_MORE
        if self.limit >= self.most:
            return
        self._fitted += 1
        if self._fitted >= self._wait:
            self.limit, self._fitted, self._trying = min(self.most, 2 * self.limit), 0, True
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
