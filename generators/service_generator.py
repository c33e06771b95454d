"""What the captioner and the image generator behind a server have in common."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from PIL import Image

from generators.base import Candidate, CaptionRequest, Dropped, Generated, ImageRequest
from generators.pictures import shrunk
from generators.service import (
    SEED_MASK,
    ContentRefused,
    Service,
    ServiceError,
    ServiceRefused,
    ServiceUnanswered,
    Upload,
)

Request = TypeVar("Request", CaptionRequest, ImageRequest)

# So many rows without an answer, and none with one in between, are the server's fault, not theirs.
ROWS_OF_AN_OUTAGE = 3


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
        self._answers = 0
        self._unanswered: set[str] = set()

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

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """A candidate for every seed of every request, ``concurrency`` of them at a time.

        A request that fails for good fails its row.

        Raises
        ------
        ServiceRefused
            When no request of ours gets through: the key, the address, the quota, the budget, or
            a server that is down (no connection through all tries, or `ROWS_OF_AN_OUTAGE` rows one
            after another without an answer).
        """
        self.load()
        with ThreadPoolExecutor(self.settings.concurrency) as threads:
            futures = [
                [threads.submit(self._ask, request, seed) for seed in request.seeds]
                for request in requests
            ]
            try:
                return [
                    self._row(request.row_id, [_outcome(future.result) for future in of_row])
                    for request, of_row in zip(requests, futures, strict=True)
                ]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _question(self, request: Request) -> Question:
        raise NotImplementedError

    def _candidate(self, seed: int, question: Question, answer: dict[str, Any]) -> Candidate:
        """The candidate in an answer; a `ServiceError` when it holds none."""
        raise NotImplementedError

    def _ask(self, request: Request, seed: int) -> Candidate:
        question: Question = self._question(request)
        try:
            answer = self._post(request.row_id, seed, question)
        except ContentRefused as refusal:
            return question.candidate(seed, f"refused: {refusal}")
        return self._candidate(seed, question, answer)

    def _post(self, row_id: str, seed: int, question: Question) -> dict[str, Any]:
        """Post a question, and watch whether the server answers any."""
        settings, answers = self.settings, self._answers
        fields = {
            "model": settings.model,
            "seed": seed & SEED_MASK if settings.send_seed else None,
            **question.fields,
            **settings.extra,
        }
        fields = {name: value for name, value in fields.items() if value is not None}
        try:
            answer = self.service.post(question.path, fields, question.uploads)
        except ServiceUnanswered as error:
            self._unanswered.add(row_id)
            # No row keeps a connection from being made.
            gone = not error.connected and self._answers == answers
            if gone or len(self._unanswered) >= ROWS_OF_AN_OUTAGE:
                raise ServiceRefused(
                    f"{settings.base_url} seems to be down; what was done stands: {error}"
                ) from error
            raise
        except (ContentRefused, ServiceError):
            self._answered()
            raise
        self._answered()
        return answer

    def _answered(self) -> None:
        self._answers += 1
        self._unanswered.clear()

    @staticmethod
    def _row(row_id: str, outcomes: Sequence[Candidate | ServiceError]) -> Generated:
        errors = [str(one) for one in outcomes if isinstance(one, ServiceError)]
        made = tuple(one for one in outcomes if isinstance(one, Candidate))
        return Generated(row_id, made, errors[0] if errors else None)


def _outcome(result: Callable[[], Candidate]) -> Candidate | ServiceError:
    try:
        return result()
    except ServiceRefused:
        raise
    except ServiceError as error:
        return error


def data_url(image: Image.Image, longest_side: int, background: str) -> str:
    """An image as a ``data:`` address, PNG, shrunk to ``longest_side`` pixels."""
    content = base64.b64encode(png(shrunk(image, longest_side, background))).decode("ascii")
    return f"data:image/png;base64,{content}"


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG of the image, without its metadata."""
    clean = image.copy()
    clean.info = {}
    buffer = io.BytesIO()
    clean.save(buffer, "PNG")
    return buffer.getvalue()
