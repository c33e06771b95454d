"""When a request that got no good answer is sent again."""

from __future__ import annotations

import email.utils
import time

import pytest

from generators.service_waits import LONGEST_SECONDS, own_wait, wait_after


@pytest.mark.parametrize(
    ("status", "headers", "least", "most"),
    [
        (429, {"retry-after": "30"}, 30, 30),
        (503, {"retry-after": "1.5"}, 1.5, 1.5),
        (429, {"retry-after-ms": "700", "retry-after": "9"}, 0.7, 0.7),
        (500, {}, 0.375, 0.5),
        (425, {}, 0.375, 0.5),
        (400, {"x-should-retry": "true"}, 0.375, 0.5),
    ],
)
def test_a_server_is_asked_again_when_it_says_or_soon(
    status: int, headers: dict[str, str], least: float, most: float
) -> None:
    wait = wait_after(status, headers, 1)
    assert wait is not None and least <= wait <= most


@pytest.mark.parametrize(
    ("status", "headers"),
    [(400, {}), (404, {}), (500, {"x-should-retry": "false"}), (429, {"retry-after": "3600"})],
)
def test_a_server_that_says_no_or_in_an_hour_is_not(status: int, headers: dict[str, str]) -> None:
    assert wait_after(status, headers, 1) is None


def test_a_date_is_waited_for() -> None:
    date = email.utils.formatdate(time.time() + 60, usegmt=True)
    wait = wait_after(429, {"retry-after": date}, 1)
    assert wait is not None and 50 < wait <= 60


def test_waits_grow_up_to_their_longest() -> None:
    waits = [own_wait(tried) for tried in (1, 3, 5, 8, 5000)]
    assert waits[0] < waits[1] < waits[2]
    assert all(0.75 * LONGEST_SECONDS <= wait <= LONGEST_SECONDS for wait in waits[2:])
