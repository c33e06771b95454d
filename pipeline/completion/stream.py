"""Portions of rows as one stream: while some wait for the generator, others are read, asked for and judged.

A generator that works here is asked in turn, and what comes before and after it is done meanwhile. One
behind a server is asked for the next portions before those that were asked for are answered, so that it
never waits for us; what is judged is written in order all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Literal

from generators.asked import Asked
from pipeline.completion.portion import Portion

# In turn: one that is being judged or written, and one that the generator works on.
IN_TURN = 2
# Portions of which requests have still to go out: the second is there before the first one's last is gone.
UNSENT = 2
# Beyond so many bytes no more portions are asked for than these.
MOST_BYTES = 512 * 1024 * 1024
WHATEVER_THEIR_BYTES = 3

State = Literal["reading", "ready", "asked", "judging", "judged", "writing", "written"]


class _Way:
    """How far a portion is, and what it waits for."""

    def __init__(self, portion: Portion, reading: Future[Any]) -> None:
        self.portion = portion
        self.state: State = "reading"
        self.future = reading
        self.asked: Asked | None = None
        self.error: Exception | None = None

    def unsent(self) -> bool:
        return self.asked is not None and not self.asked.sent.done()

    def take_back(self) -> None:
        if self.asked is not None:
            self.asked.answers.cancel()


class Stream:
    """Portions on their way, in order; they may be of several shards of one kind.

    All but the asking is done by one other thread, which alone touches models and state.

    Parameters
    ----------
    portions : iterator of Portion
        Taken as they are needed.
    """

    def __init__(self, portions: Iterator[Portion]) -> None:
        self._portions = portions
        self._ways: deque[_Way] = deque()
        self._beside = ThreadPoolExecutor(1)
        self._window = IN_TURN
        self._most_asked = 1
        self._read_ahead()

    @property
    def shard(self) -> int | None:
        """The number of the shard whose portion is due next."""
        return self._ways[0].portion.plan.number if self._ways else None

    def run(
        self,
        shard: int,
        write: Callable[[Portion], Any],
        answered: Callable[[int], None] = lambda rows: None,
    ) -> Iterator[Portion]:
        """Bring a shard's portions to their end; those of the next one come along.

        Parameters
        ----------
        shard
            Its number, that of `shard`.
        write
            Called with each judged portion, in order, on the other thread.
        answered
            Called with how many rows the generator has answered.

        Yields
        ------
        Portion
            One that is written.

        Raises
        ------
        Exception
            That of the first portion, in order, that can't go on; those before it are written.
        """
        while self.shard == shard:
            moved = [self._move(place, way, write, answered) for place, way in self._free()]
            head = self._ways[0]
            if head.error is not None:
                raise head.error
            if head.state == "written":
                self._ways.popleft()
                self._read_ahead()
                yield head.portion
            elif not any(moved):
                wait(self._awaited(), return_when=FIRST_COMPLETED)

    def close(self) -> None:
        """Let go what is under way; returns once the other thread rests."""
        for way in self._ways:
            way.take_back()
        self._beside.shutdown(cancel_futures=True)
        self._ways.clear()

    def _free(self) -> Iterator[tuple[int, _Way]]:
        """Those that no error stands before, each with its place."""
        for place, way in enumerate(list(self._ways)):
            if way.error is None:
                yield place, way
            if way.error is not None:
                return

    def _move(
        self,
        place: int,
        way: _Way,
        write: Callable[[Portion], Any],
        answered: Callable[[int], None],
    ) -> bool:
        """Bring a portion one step on, if it can go; an error of it counts when its turn comes."""
        try:
            return self._step(place, way, write, answered)
        except Exception as error:  # whatever it is, what comes before is finished first
            way.error = error
            for other in list(self._ways)[place + 1 :]:
                other.take_back()
            return True

    def _step(
        self,
        place: int,
        way: _Way,
        write: Callable[[Portion], Any],
        answered: Callable[[int], None],
    ) -> bool:
        portion = way.portion
        if way.state == "ready":
            if not self._may_ask(place, portion.plan.number == self._ways[0].portion.plan.number):
                return False
            way.state = "asked"
            # Before a generator that answers at once: it is read meanwhile.
            self._read_ahead()
            way.asked = portion.ask()
            self._widen(way.asked)
            way.future = way.asked.answers
        elif way.state == "judged":
            if place:
                return False
            way.state, way.future = "writing", self._beside.submit(write, portion)
        elif not way.future.done():
            return False
        elif way.state == "asked":
            assert way.asked is not None
            answers, way.asked = way.asked.gather(), None
            answered(portion.hold(answers))
            way.state, way.future = "judging", self._beside.submit(portion.judge, answers)
        elif way.state == "judging":
            way.state = "judged" if way.future.result() else "ready"
        else:
            way.future.result()
            way.state = "ready" if way.state == "reading" else "written"
        return True

    def _may_ask(self, place: int, of_this_shard: bool) -> bool:
        # A shard that is done shall not wait for a generator that works on the next one.
        if place >= self._window or not (of_this_shard or self._window > IN_TURN):
            return False
        if sum(way.unsent() for way in self._ways) >= UNSENT:
            return False
        held = sum(way.portion.nbytes for way in self._ways)
        return place < WHATEVER_THEIR_BYTES or held < MOST_BYTES

    def _widen(self, asked: Asked) -> None:
        """As many portions as what may be asked for ahead comes to."""
        self._most_asked = max(self._most_asked, asked.count)
        self._window = IN_TURN + -(-asked.ahead // self._most_asked)

    def _read_ahead(self) -> None:
        """See that one portion is read ahead of those that are asked for."""
        if any(way.error for way in self._ways):
            return
        if self._ways and self._ways[-1].state in ("reading", "ready"):
            return
        portion = next(self._portions, None)
        if portion is not None:
            self._ways.append(_Way(portion, self._beside.submit(portion.read)))

    def _awaited(self) -> list[Future[Any]]:
        """What may let any of them go on."""
        ways = [way for _, way in self._free()]
        sent = [way.asked.sent for way in ways if way.asked is not None]
        return [one for one in [*(way.future for way in ways), *sent] if not one.done()]
