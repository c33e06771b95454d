"""Work in threads ahead of its taker: in order, within bounds, errors where they belong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from kb.encoders.ahead import ahead


def test_results_come_in_order_though_the_first_takes_longest() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number * number

    assert list(ahead(slow_first, range(20), 4, 6)) == [n * n for n in range(20)]


def test_no_more_items_are_read_than_are_held_and_all_by_the_one_who_takes() -> None:
    read, taken, most = 0, 0, 0
    readers = set()

    def items() -> Iterator[int]:
        nonlocal read
        for number in range(50):
            read += 1
            readers.add(threading.get_ident())
            yield number

    for _ in ahead(lambda number: number, items(), 3, 5):
        most = max(most, read - taken)
        taken += 1
    assert (taken, most) == (50, 5)
    assert readers == {threading.get_ident()}


def test_as_many_are_in_work_as_there_are_threads() -> None:
    meeting = threading.Barrier(3, timeout=30)
    assert len(list(ahead(lambda _: meeting.wait(), range(9), 3, 9))) == 9


def test_an_error_is_raised_where_its_result_would_stand() -> None:
    found = ahead(lambda number: 12 // number, [1, 2, 0, 3], 2, 4)
    assert [next(found), next(found)] == [12, 6]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_whoever_takes_no_more_leaves_nothing_running() -> None:
    before = threading.active_count()
    found = ahead(lambda number: number, iter(range(1000)), 4, 8)
    assert next(found) == 0
    found.close()
    assert threading.active_count() == before
