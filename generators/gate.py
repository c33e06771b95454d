"""How many requests are under way at once: fewer when the server says that they are too many."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

logger = logging.getLogger(__name__)

# One burst of refusals is one sign: all of it was sent before the first could be heeded.
SECONDS_OF_A_BURST = 1.0


class Gate:
    """Lets so many requests through at once: halved at a refusal, one more after each round without.

    A round is as many answers as there is room for: additive increase, multiplicative decrease, as
    TCP finds its rate (Chiu and Jain 1989). Used in one event loop; first come, first served.

    Parameters
    ----------
    most : int
        Never more than these.

    Attributes
    ----------
    limit : int
        So many now.
    """

    def __init__(self, most: int) -> None:
        self.most = self.limit = most
        self._inside = 0
        self._taken = 0
        self._narrowed = -SECONDS_OF_A_BURST
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self._inside < self.limit and not self._waiting:
            self._inside += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    async def __aexit__(self, *error: object) -> None:
        self._leave()

    def refused(self) -> None:
        """The server takes no more for now."""
        now = time.monotonic()
        self._taken = 0
        if now - self._narrowed >= SECONDS_OF_A_BURST and self.limit > 1:
            self._narrowed = now
            self.limit = max(1, self.limit // 2)
            logger.info("the server asks for fewer requests: %d at once from here on", self.limit)

    def taken(self) -> None:
        """The server took one."""
        self._taken += 1
        if self._taken >= self.limit < self.most:
            self._taken = 0
            self.limit += 1
            self._let_in()

    def _leave(self) -> None:
        self._inside -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._inside < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)
