"""What the captioner and the image generator behind a server have in common."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

from generators.asked import Asked
from generators.base import Candidate, CaptionRequest, Generated, ImageRequest
from generators.sent_pictures import Pictures
from generators.service import Service
from generators.service_errors import (
    ContentRefused,
    ServiceError,
    ServiceRefused,
    ServiceUnanswered,
    WrongRequest,
)
from generators.service_question import Leaving, Once, Prepared, Question
from generators.usage import Usage

Request = TypeVar("Request", CaptionRequest, ImageRequest)

# So many rows without an answer, and none with one in between, are the server's fault, not theirs.
ROWS_OF_AN_OUTAGE = 3
# Candidates under way beside those that are awaited, as a multiple of the concurrency: by as many times
# the mean may the slowest answer of a block take before the server waits for us.
AHEAD = 16
# Characters that are kept of what a server calls its model.
MOST_OF_A_REVISION = 200
# Servers disagree on wider seeds; all take 31 bits.
SEED_MASK = (1 << 31) - 1


class ServiceGenerator(Generic[Request]):
    """A generator whose model is behind a server; each candidate is a request of its own.

    Servers that heed seeds give the same candidates again.

    Parameters
    ----------
    settings : ServiceSettings
    paths : mapping or None
        Not used: nothing is loaded.
    """

    def __init__(self, settings: Any, paths: Any = None) -> None:
        self.settings = settings
        self.service = Service(settings)
        self._answered = 0
        self._right = False
        self._rows: Counter[str] = Counter()
        self._unanswered: set[str] = set()
        self._wrong: set[str] = set()

    def load(self) -> None:
        """Read the key and open the connections; sends nothing.

        Raises
        ------
        ServiceRefused
            When the variable that should hold the key is not set.
        """
        self.service.open()

    def close(self) -> None:
        """Close the connections."""
        self.service.close()

    def memory(self) -> int:
        """No weights here."""
        return 0

    @property
    def used(self) -> Usage:
        """What the server has counted so far."""
        return self.service.used

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """A candidate for every seed of every request, ``concurrency`` of them at a time at most.

        A candidate that can't be had is missing from its row's answer, which says why.

        Raises
        ------
        ServiceRefused
            When no request of ours gets through: the key, the address, the quota, the budget, a
            server that is down (no connection through all tries, or `ROWS_OF_AN_OUTAGE` rows one
            after another without an answer), or one that finds all of them wrong.
        """
        return self.submit(requests).gather()

    def submit(self, requests: Sequence[Request]) -> Asked:
        """The same, under way; calls share the ``concurrency``, and the first goes out first.

        A request's pictures are let go once they are encoded, and what is sent once it is answered.
        """
        sent: Future[None] = Future()
        held = list(requests)
        answers = self.service.start(lambda: self._answers(held, sent))
        count = sum(len(request.seeds) for request in requests)
        return Asked(answers, sent, count, AHEAD * self.settings.concurrency)

    async def _answers(self, requests: list[Request], sent: Future[None]) -> list[Generated]:
        pictures = Pictures(self.settings)
        rows = [request.row_id for request in requests]
        self._rows.update(rows)
        leaving = Leaving(sum(len(request.seeds) for request in requests), sent)
        tasks = [self._begun(request, pictures, leaving) for request in requests]
        # With each goes its picture, once it is encoded.
        requests.clear()
        every = [task for of_row in tasks for task in of_row]
        try:
            await asyncio.gather(*every)
        except BaseException:
            for task in every:
                task.cancel()
            await asyncio.gather(*every, return_exceptions=True)
            raise
        finally:
            self._rows.subtract(rows)
            leaving.all_gone()
        return [
            self._row(row_id, [task.result() for task in of_row])
            for row_id, of_row in zip(rows, tasks, strict=True)
        ]

    def _begun(
        self, request: Request, pictures: Pictures, leaving: Leaving
    ) -> list[asyncio.Task[Candidate | ServiceError]]:
        asked = Once(partial(self._prepared, request, pictures))
        return [
            asyncio.create_task(self._ask(request.row_id, asked, seed, leaving))
            for seed in request.seeds
        ]

    def _question(self, request: Request, pictures: Pictures) -> Question:
        """What is asked for every candidate of a request; called on another thread."""
        raise NotImplementedError

    def _candidate(self, seed: int, question: Question, answer: dict[str, Any]) -> Candidate:
        """The candidate in an answer; a `ServiceError` when it holds none."""
        raise NotImplementedError

    async def _ask(
        self, row_id: str, asked: Once, seed: int, leaving: Leaving
    ) -> Candidate | ServiceError:
        async with self.service.gate:
            leaving.one_gone()
            prepared: Prepared | None = None
            try:
                prepared = await asked()
                answer = await self._post(row_id, seed, prepared)
                candidate = self._candidate(seed, prepared.question, answer)
                return replace(candidate, revision=self._revision(answer))
            except ContentRefused as refusal:
                assert prepared is not None
                return prepared.question.candidate(seed, f"refused: {refusal}")
            except ServiceRefused:
                raise
            except ServiceError as error:
                return error

    def _revision(self, answer: dict[str, Any]) -> str | None:
        """What an answer says of the model that gave it, beyond the name that was asked for."""
        said = [answer.get("model"), answer.get("system_fingerprint")]
        told = [
            one for one in said if isinstance(one, str) and one not in ("", self.settings.model)
        ]
        return " ".join(told)[:MOST_OF_A_REVISION] or None

    def _prepared(self, request: Request, pictures: Pictures) -> Prepared:
        """All that is sent for a request's candidates, but for the seed."""
        settings = self.settings
        question: Question = self._question(request, pictures)
        fields = {"model": settings.model, **question.fields, **settings.extra}
        fields = {name: value for name, value in fields.items() if value is not None}
        seeded = settings.send_seed and "seed" not in settings.extra
        if not seeded:
            # The candidate's seed is recorded: it is not what the server drew with.
            question = replace(question, notes=(*question.notes, "drawn without our seed"))
        return Prepared(question, fields, json.dumps(fields).encode(), seeded)

    async def _post(self, row_id: str, seed: int, prepared: Prepared) -> dict[str, Any]:
        """Post a question, and watch whether the server answers any."""
        settings, answers, question = self.settings, self._answered, prepared.question
        try:
            body = prepared.body(seed & SEED_MASK)
            answer = await self.service.post(question.path, body, question.uploads)
        except ServiceUnanswered as error:
            self._unanswered.add(row_id)
            # No row keeps a connection from being made.
            gone = not error.connected and self._answered == answers
            if gone or len(self._unanswered) >= ROWS_OF_AN_OUTAGE:
                raise ServiceRefused(
                    f"{settings.base_url} seems to be down; what was done stands: {error}"
                ) from error
            raise
        except WrongRequest as error:
            self._heard()
            self._wrong.add(row_id)
            # One row may be wrong; where every one is and none ever was right, it is the settings.
            rows = len(+self._rows)
            if not self._right and len(self._wrong) >= min(ROWS_OF_AN_OUTAGE, max(2, rows)):
                raise ServiceRefused(
                    f"{settings.base_url} finds every request wrong: {error}"
                ) from error
            raise
        except (ContentRefused, ServiceError) as error:
            self._heard()
            self._right |= isinstance(error, ContentRefused)
            raise
        self._heard()
        self._right = True
        return answer

    def _heard(self) -> None:
        self._answered += 1
        self._unanswered.clear()

    @staticmethod
    def _row(row_id: str, outcomes: Sequence[Candidate | ServiceError]) -> Generated:
        errors = [str(one) for one in outcomes if isinstance(one, ServiceError)]
        made = tuple(one for one in outcomes if isinstance(one, Candidate))
        return Generated(row_id, made, errors[0] if errors else None)
