"""Requests that are under way: asked now, their answers gathered later.

A generator whose model is elsewhere has a method `submit` beside `generate`: it takes requests, and gives
an `Asked` while they are still on their way, so that the next ones can go out before these are
answered. One that works here has none; it is asked in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from generators.base import CaptionRequest, Example, Generated, ImageRequest

_NO_PICTURE = Image.new("RGB", (1, 1))


def _as_it_is(answers: Any) -> Any:
    return answers


@dataclass(frozen=True)
class Asked:
    """Requests of one call, on their way or answered.

    Parameters
    ----------
    answers : Future
        Done with what `finish` takes, or with what ended the call.
    sent : Future
        Done once every request has gone out for the first time.
    count : int
        Candidates that are asked for.
    ahead : int
        Candidates that may be asked for, of this call and those after it, before this one's are there;
        0 where nothing can be under way.
    finish : callable
        What makes the answers of what came.
    """

    answers: Future[Any]
    sent: Future[None]
    count: int = 0
    ahead: int = 0
    finish: Callable[[Any], list[Generated]] = _as_it_is

    @classmethod
    def answered(cls, answers: Sequence[Generated]) -> Asked:
        """What was answered while it was asked."""
        there: Future[Any] = Future()
        there.set_result(list(answers))
        sent: Future[None] = Future()
        sent.set_result(None)
        return cls(there, sent)

    def then(self, change: Callable[[list[Generated]], list[Generated]]) -> Asked:
        """The same, with answers that are changed when they are gathered."""
        finish = self.finish
        return replace(self, finish=lambda answers: change(finish(answers)))

    def gather(self) -> list[Generated]:
        """The answers, waited for; an interrupt takes back what has not gone out."""
        try:
            return self.finish(self.answers.result())
        except BaseException:
            self.answers.cancel()
            raise


def without_pictures(request: CaptionRequest | ImageRequest) -> CaptionRequest | ImageRequest:
    """A request as far as its answer is told by it, for who holds it while it is under way."""
    examples = tuple(Example(example.id, "") for example in request.examples)
    if isinstance(request, ImageRequest):
        return replace(request, examples=examples)
    return replace(request, image=_NO_PICTURE, examples=examples, file=None)


def submit(generator: Any, requests: Sequence[Any]) -> Asked:
    """Ask a generator: at once where it can be, otherwise until it has answered."""
    at_once = getattr(generator, "submit", None)
    if at_once is None:
        return Asked.answered(generator.generate(requests))
    asked: Asked = at_once(requests)
    return asked
