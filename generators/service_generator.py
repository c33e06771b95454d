"""What the captioner and the image generator behind a server have in common."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from PIL import Image

from generators.base import Candidate, CaptionRequest, Generated, ImageRequest
from generators.pictures import shrunk
from generators.service import Service, ServiceError, ServiceRefused

Request = TypeVar("Request", CaptionRequest, ImageRequest)


class ServiceGenerator:
    """A generator whose model is behind a server.

    Parameters
    ----------
    settings : ServiceSettings
    paths : mapping or None
        Not used: nothing is loaded.
    """

    def __init__(self, settings: Any, paths: Any = None) -> None:
        self.settings = settings
        self.service = Service(settings)

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

    def _answers(
        self,
        requests: Sequence[Request],
        ask: Callable[[Request, int], Candidate],
    ) -> list[Generated]:
        """A candidate for each seed, ``concurrency`` requests at a time.

        A request that fails for good fails its row; one that tells of a server that takes nothing
        ends the whole call.
        """
        self.load()
        with ThreadPoolExecutor(self.settings.concurrency) as threads:
            futures = [
                [threads.submit(ask, request, seed) for seed in request.seeds]
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

    @staticmethod
    def _row(row_id: str, outcomes: Sequence[Candidate | ServiceError]) -> Generated:
        for outcome in outcomes:
            if isinstance(outcome, ServiceError):
                return Generated(row_id, error=str(outcome))
        return Generated(row_id, tuple(one for one in outcomes if isinstance(one, Candidate)))


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
