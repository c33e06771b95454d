"""Batches that shrink when memory runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generators.batching import BatchRunner, JobError, OutOfMemory
from generators.device import Peak, free_memory, is_out_of_memory


class Worker:
    """Doubles numbers, as long as the batch weighs no more than there is room for."""

    def __init__(self, room: int, heavy: frozenset[int] = frozenset()) -> None:
        self.room = room
        self.heavy = heavy
        self.batches: list[list[int]] = []

    def __call__(self, jobs: list[int]) -> list[int]:
        self.batches.append(jobs)
        if len(jobs) > self.room or self.heavy & set(jobs):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [job * 2 for job in jobs]


def test_results_come_in_order_whatever_the_batch() -> None:
    for size in (1, 2, 3, 7, 20):
        assert BatchRunner(Worker(99), size).run(range(11)) == [2 * job for job in range(11)]


def test_no_batch_is_larger_than_its_size() -> None:
    worker = Worker(99)
    BatchRunner(worker, 4).run(range(11))
    assert [len(batch) for batch in worker.batches] == [4, 4, 3]


def test_out_of_memory_halves_and_keeps_the_smaller_size() -> None:
    worker = Worker(room=2)
    runner = BatchRunner(worker, 8)
    assert runner.run(range(6)) == [0, 2, 4, 6, 8, 10]
    assert [len(batch) for batch in worker.batches] == [6, 3, 1, 1, 1, 1, 1, 1]
    worker.batches.clear()
    runner.run(range(2))
    assert [len(batch) for batch in worker.batches] == [1, 1]


def test_a_job_that_does_not_fit_alone_fails_alone() -> None:
    worker = Worker(room=8, heavy=frozenset({2}))
    results = BatchRunner(worker, 4).run(range(5))
    assert isinstance(results[2], OutOfMemory)
    assert [result for result in results if not isinstance(result, OutOfMemory)] == [0, 2, 6, 8]


def test_batches_end_where_a_group_does() -> None:
    worker = Worker(99)
    BatchRunner(worker, 8).run(range(12), together=3)
    assert [len(batch) for batch in worker.batches] == [6, 6]
    worker.batches.clear()
    BatchRunner(worker, 2).run(range(6), together=3)
    assert [len(batch) for batch in worker.batches] == [2, 2, 2]


def test_a_batch_grows_back_once_some_have_fitted_and_waits_longer_after_a_try_in_vain() -> None:
    worker = Worker(room=4)
    runner = BatchRunner(worker, 8)
    runner.run(range(8 + 8 * 4))
    worker.batches.clear()
    worker.room = 99
    runner.run(range(12 * 8))
    sizes = [len(batch) for batch in worker.batches]
    assert sizes[0] in (4, 8) and sizes[-1] == 8
    worker.room = 4
    worker.batches.clear()
    runner.run(range(60 * 4))
    tries = [place for place, batch in enumerate(worker.batches) if len(batch) == 8]
    gaps = np.diff(tries).tolist()
    assert gaps == [9, 17, 33]


@pytest.mark.parametrize(
    ("each", "free", "gpu", "size"),
    [
        (100_000_000, 8_000_000_000, True, 64),
        (100_000_000, 4_000_000_000, True, 32),
        (100_000_000, 900_000_000, True, 4),
        (100_000_000, 150_000_000, True, 1),
        (100_000_000, 90_000_000_000, False, 16),
        (100_000_000, 500_000_000, False, 4),
        (0, 90_000_000_000, False, 4),
    ],
)
def test_auto_is_what_fits_into_the_free_memory_by_what_a_first_batch_takes(
    each: int, free: int, gpu: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Measured:
        bytes = 0

        def __init__(self, device: torch.device) -> None: ...

        def __enter__(self) -> Measured:
            return self

        def __exit__(self, *error: object) -> None:
            self.bytes = each * len(worker.batches[-1])

    monkeypatch.setattr("generators.batching.Peak", Measured)
    monkeypatch.setattr("generators.batching.free_memory", lambda device: free)
    device = torch.device("cuda" if gpu else "cpu")
    monkeypatch.setattr("generators.batching.resolve_device", lambda name: device)
    worker = Worker(999)
    assert BatchRunner(worker, "auto").run(range(200)) == [2 * job for job in range(200)]
    assert [len(batch) for batch in worker.batches[:2]] == [4, size]


def test_what_a_batch_takes_is_measured_on_a_cpu() -> None:
    device = torch.device("cpu")
    with Peak(device) as peak:
        held = torch.ones(40_000_000)
    if peak.bytes:  # Linux alone tells
        assert 100e6 < peak.bytes < 400e6
    assert free_memory(device) >= 0
    assert held[0] == 1


def test_other_errors_are_not_swallowed() -> None:
    def broken(jobs: list[int]) -> list[int]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        BatchRunner(broken, 2).run([1, 2])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_an_error_of_one_job_fails_it_alone(size: int) -> None:
    def picky(jobs: list[int]) -> list[int]:
        if 2 in jobs:
            raise ValueError("absolute aspect ratio must be smaller than 200, got 300.0")
        return [job * 2 for job in jobs]

    results = BatchRunner(picky, size).run(range(5))
    assert isinstance(results[2], JobError)
    assert (
        str(results[2]) == "ValueError: absolute aspect ratio must be smaller than 200, got 300.0"
    )
    assert [result for result in results if not isinstance(result, JobError)] == [0, 2, 6, 8]


def test_a_row_that_fails_alone_in_its_call_does_not_end_the_others() -> None:
    """A run may hold nothing but this row, and would end there each time."""

    def broken(jobs: list[int]) -> list[int]:
        raise ValueError("not a picture")

    results = BatchRunner(broken, 4).run(range(4), together=4)
    assert all(isinstance(result, JobError) for result in results)


def test_a_gpu_that_answers_nothing_any_more_ends_the_call() -> None:
    def lost(jobs: list[int]) -> list[int]:
        if 2 in jobs:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        return jobs

    with pytest.raises(RuntimeError, match="device-side"):
        BatchRunner(lost, 1).run(range(5))


def test_a_lost_result_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="2 jobs gave 1 results"):
        BatchRunner(lambda jobs: jobs[:1], 2).run([1, 2])


def test_the_hosts_own_shortage_of_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("expected scalar type Half"))
    assert not is_out_of_memory(ValueError("not enough memory"))


def test_memory_of_the_failed_batch_is_free_before_the_next_try() -> None:
    """A kept traceback would hold the tensors of the batch that did not fit."""
    import weakref

    alive: list[weakref.ref[torch.Tensor]] = []

    def hungry(jobs: list[int]) -> list[int]:
        if len(jobs) > 1:
            tensor = torch.zeros(10)
            alive.append(weakref.ref(tensor))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        assert alive[0]() is None
        return jobs

    assert BatchRunner(hungry, 2).run([1, 2]) == [1, 2]
