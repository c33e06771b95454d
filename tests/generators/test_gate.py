"""Requests at once, and a server that finds them too many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from generators import gate as gates
from generators.base import CaptionRequest
from generators.gate import Gate
from tests.generators.server import Server, captioner


def test_no_more_are_let_through_than_the_limit_and_in_order() -> None:
    gate, inside, entered = Gate(3), 0, []

    async def one(number: int) -> None:
        nonlocal inside
        async with gate:
            inside += 1
            assert inside <= 3
            entered.append(number)
            await asyncio.sleep(0.001)
            inside -= 1

    async def run() -> None:
        await asyncio.gather(*(one(number) for number in range(20)))

    asyncio.run(run())
    assert entered == list(range(20))


def test_those_who_give_up_waiting_take_no_place() -> None:
    gate = Gate(1)

    async def enter() -> None:
        async with gate:
            await asyncio.sleep(0.01)

    async def run() -> None:
        tasks = [asyncio.create_task(enter()) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks[1:4]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in done] == [
            False,
            *[True] * 3,
            False,
        ]
        await asyncio.wait_for(enter(), 1)

    asyncio.run(run())


def test_a_refusal_halves_and_each_round_without_one_brings_one_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(gates.time, "monotonic", lambda: now)
    gate = Gate(16)
    gate.refused()
    gate.refused()
    assert gate.limit == 8, "a burst is one sign"
    now = 2.0
    gate.refused()
    assert gate.limit == 4
    for _ in range(4 + 5):
        gate.taken()
    assert gate.limit == 6
    for _ in range(1000):
        gate.taken()
    assert gate.limit == 16
    for later in range(10, 30, 2):
        now = float(later)
        gate.refused()
    assert gate.limit == 1


def test_a_server_that_refuses_what_is_too_much_gets_less(
    server: Server, ask: Callable[..., CaptionRequest]
) -> None:
    server.script.extend([429] * 4)
    asked = captioner(server, concurrency=8)
    (answer,) = asked.generate([ask(*range(16))])
    assert answer.error is None and len(answer.candidates) == 16
    assert asked.service.gate.limit < 8
