"""What a server is asked: written once a request, for all its candidates, and let go when it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from generators.base import Candidate, Dropped
from generators.sent_pictures import Upload
from generators.service_errors import ServiceError


@dataclass(frozen=True, slots=True)
class Question:
    """What the server is asked for one candidate.

    Parameters
    ----------
    path : str
        Below ``base_url``.
    fields : dict
        The body without the model, the seed and the settings' ``extra``; None leaves a field out.
    prompt, notes, shown, dropped
        Of the candidate, whatever the answer is.
    uploads : sequence of Upload
        Files of a multipart request.
    """

    path: str
    fields: dict[str, Any]
    prompt: str
    notes: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    uploads: Sequence[Upload] = ()

    def candidate(self, seed: int, *notes: str, **half: Any) -> Candidate:
        """A candidate that answers it."""
        return Candidate(
            seed,
            self.prompt,
            notes=(*self.notes, *notes),
            shown=self.shown,
            dropped=self.dropped,
            **half,
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question with its body, which is written once: only the seed differs."""

    question: Question
    fields: dict[str, Any]
    written: bytes
    seeded: bool

    def body(self, seed: int) -> bytes | dict[str, Any]:
        """The body with a seed: JSON, or the fields of a form where there are uploads."""
        if self.question.uploads:
            return {"seed": seed, **self.fields} if self.seeded else self.fields
        return b'{"seed": %d, %s' % (seed, self.written[1:]) if self.seeded else self.written


class Leaving:
    """Counts the requests of a call that have not gone out."""

    def __init__(self, count: int, sent: Future[None]) -> None:
        self._left = count
        self._sent = sent

    def one_gone(self) -> None:
        self._left -= 1
        if not self._left:
            self.all_gone()

    def all_gone(self) -> None:
        if not self._sent.done():
            self._sent.set_result(None)


class Once:
    """What is sent for a request, made when its first candidate is due, for all of them."""

    def __init__(self, make: Callable[[], Prepared]) -> None:
        self._make: Callable[[], Prepared] | None = make
        self._made: asyncio.Task[Prepared] | None = None

    async def __call__(self) -> Prepared:
        if self._made is None:
            assert self._make is not None
            self._made = asyncio.create_task(asyncio.to_thread(self._make))
            # With it go the pictures.
            self._make = None
        try:
            return await asyncio.shield(self._made)
        except (OSError, ValueError, MemoryError) as error:
            raise ServiceError(f"its pictures can't be sent: {error}") from error
