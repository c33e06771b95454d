"""Talk to an OpenAI-compatible server: with retries, timeouts, a budget, and a key that stays hidden."""

from __future__ import annotations

import base64
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from generators.base import Candidate, CaptionRequest, Generated, ImageRequest
from generators.pictures import shrunk

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# Too many requests, a timeout or a conflict on the way, and the server's own troubles: the next try may pass.
PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
REFUSED_KEY_STATUS = frozenset({401, 403, 407})
SHOWN_CHARACTERS = 200
# Servers disagree on wider seeds; all take 31 bits.
SEED_MASK = (1 << 31) - 1


class ServiceError(ValueError):
    """One request failed for good; the message says how. The row of it fails, others go on."""


class ServiceRefused(ServiceError):
    """The server takes no request of ours (key, address): no point in going on."""


class ContentRefused(Exception):
    """The server declined the content of one request."""


class ServiceSettings(BaseModel):
    """Settings shared by everything that asks a server."""

    model_config = ConfigDict(extra="forbid")

    base_url: str = Field(
        description="Address of the server up to the version, such as http://localhost:8000/v1."
    )
    model: str = Field(min_length=1, description="Name of the model at the server.")
    send_data: bool = Field(
        False, description="Consent: rows and examples leave this machine for base_url."
    )
    api_key_env: str | None = Field(
        "OPENAI_API_KEY",
        description="Environment variable that holds the key; None where the server wants none.",
    )
    timeout: float = Field(60.0, gt=0, description="Seconds to wait for an answer.")
    retries: int = Field(5, ge=0, description="More tries after one that may pass later.")
    backoff: float = Field(
        1.0,
        ge=0,
        description="Seconds before the second try; doubled each time, at most max_backoff.",
    )
    max_backoff: float = Field(60.0, ge=0, description="Most seconds between two tries.")
    concurrency: int = Field(8, ge=1, description="Requests under way at once.")
    max_requests: int | None = Field(
        None, ge=1, description="Most requests a process may send, retries included; None for any."
    )

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        import httpx

        try:
            url = httpx.URL(value)
        except httpx.InvalidURL as error:
            raise ValueError(f"base_url is not an address: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"base_url must start with http:// or https://; got {value!r}")
        if url.userinfo:
            raise ValueError("base_url must not hold a user or password; use api_key_env")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _consent(self) -> ServiceSettings:
        if not self.send_data:
            raise ValueError(
                f"send_data must be true for kind openai: rows and examples are sent to {self.base_url}"
            )
        return self

    def models(self) -> dict[str, tuple[str, str | None]]:
        """Nothing that is loaded here."""
        return {}

    def identity(self) -> dict[str, Any]:
        """What is asked and of whom, not how patiently."""
        pace = {"timeout", "retries", "backoff", "max_backoff", "concurrency", "max_requests"}
        return self.model_dump(mode="json", exclude=pace | {"send_data", "api_key_env"})


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a multipart request."""

    field: str
    name: str
    content: bytes
    media_type: str


class Service:
    """A client of one server. Threads may share it.

    Parameters
    ----------
    settings : ServiceSettings
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.sent = 0
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._key: str | None = None

    def __repr__(self) -> str:
        return f"Service({self.settings.base_url!r}, model={self.settings.model!r})"

    def open(self) -> None:
        """Read the key and make the connection pool; sends nothing.

        Raises
        ------
        ServiceRefused
            When the variable that should hold the key is not set.
        """
        import httpx

        with self._lock:
            if self._client is not None:
                return
            headers = {}
            name = self.settings.api_key_env
            if name is not None:
                key = os.environ.get(name, "").strip()
                if not key:
                    raise ServiceRefused(
                        f"environment variable {name} is not set; put the key for "
                        f"{self.settings.base_url} there, or set api_key_env to null"
                    )
                self._key = key
                headers["Authorization"] = f"Bearer {key}"
            self._client = httpx.Client(
                headers=headers,
                timeout=self.settings.timeout,
                limits=httpx.Limits(max_connections=self.settings.concurrency),
                # The address is the one that was consented to.
                follow_redirects=False,
            )

    def close(self) -> None:
        """Close the connections and forget the key."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = self._key = None

    def post(
        self, path: str, fields: dict[str, Any], uploads: Sequence[Upload] = ()
    ) -> dict[str, Any]:
        """Send one request, again where that may help, and return the answer.

        Parameters
        ----------
        path : str
            Below ``base_url``, such as ``chat/completions``.
        fields : dict
            The body: JSON, or form fields where there are uploads.
        uploads : sequence of Upload
            Files of a multipart request.

        Returns
        -------
        dict
            The JSON object of the answer.

        Raises
        ------
        ContentRefused
            When the server declines the content.
        ServiceRefused
            When it refuses the key or doesn't know the address or model.
        ServiceError
            When no try gave an answer, or the budget is spent.
        """
        failure = "no request was sent"
        for attempt in range(self.settings.retries + 1):
            answer, failure, wait = self._try(path, fields, uploads)
            if answer is not None:
                return answer
            if attempt < self.settings.retries:
                # A random delay would take from a generator that isn't ours; the share of the thread
                # spreads the tries as well.
                pause = min(self.settings.backoff * 2**attempt, self.settings.max_backoff)
                pause = max(pause * (1 + threading.get_ident() % 7 / 28), wait)
                logger.info("%s; trying again in %.1f s", failure, pause)
                time.sleep(min(pause, self.settings.max_backoff))
        tries = self.settings.retries + 1
        raise ServiceError(f"{failure} ({tries} tries)" if tries > 1 else failure)

    def _try(
        self, path: str, fields: dict[str, Any], uploads: Sequence[Upload]
    ) -> tuple[dict[str, Any] | None, str, float]:
        """One try: the answer, or what failed and the seconds that the server asks to wait."""
        import httpx

        self.open()
        client = self._client
        assert client is not None
        self._spend()
        body: dict[str, Any] = {"json": fields}
        if uploads:
            files = [(one.field, (one.name, one.content, one.media_type)) for one in uploads]
            form = {name: str(value) for name, value in fields.items() if value is not None}
            body = {"data": form, "files": files}
        try:
            response = client.post(f"{self.settings.base_url}/{path}", **body)
        except httpx.TimeoutException:
            return None, f"no answer within {self.settings.timeout:g} s", 0.0
        except httpx.TransportError as error:
            return None, self._hidden(f"connection failed: {error or type(error).__name__}"), 0.0
        if response.is_success:
            try:
                answer = response.json()
            except ValueError:
                answer = None
            if isinstance(answer, dict):
                return answer, "", 0.0
            return None, f"the answer is not a JSON object: {self._shown(response)}", 0.0
        failure = f"status {response.status_code}: {self._shown(response)}"
        if response.status_code in PASSING_STATUS and not _out_of_quota(response):
            return None, failure, _retry_after(response)
        if response.status_code == 400 and _content_refused(response):
            raise ContentRefused(self._shown(response))
        if response.status_code in REFUSED_KEY_STATUS | {404, 405} or response.is_redirect:
            raise ServiceRefused(f"{self.settings.base_url} refuses: {failure}")
        if _out_of_quota(response):
            raise ServiceRefused(f"{self.settings.base_url} has no quota left: {failure}")
        raise ServiceError(failure)

    def _spend(self) -> None:
        """Count one request against the budget."""
        with self._lock:
            budget = self.settings.max_requests
            if budget is not None and self.sent >= budget:
                raise ServiceError(f"the budget of {budget} requests (max_requests) is spent")
            self.sent += 1

    def _shown(self, response: httpx.Response) -> str:
        """The start of a body, on one line and without the key."""
        text = " ".join(response.text.split())
        return self._hidden(text)[:SHOWN_CHARACTERS] or "(empty)"

    def _hidden(self, text: str) -> str:
        """The text without the key, which a server or a library may repeat."""
        return text.replace(self._key, "***") if self._key else text


class ServiceGenerator:
    """What the captioner and the image generator behind a server have in common.

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
        requests: Sequence[CaptionRequest] | Sequence[ImageRequest],
        ask: Callable[[Any, int], Candidate],
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


def _error_of(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _content_refused(response: httpx.Response) -> bool:
    """Whether a 400 says that the content is declined, in the codes that servers use for it."""
    error = _error_of(response)
    codes = f"{error.get('code')} {error.get('type')}"
    return any(
        sign in codes
        for sign in ("content_policy", "content_filter", "moderation_blocked", "safety")
    )


def _out_of_quota(response: httpx.Response) -> bool:
    """Whether a 429 tells of an account without credit, which waiting does not mend."""
    return "insufficient_quota" in str(_error_of(response).get("code"))


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait; 0 when it says nothing, or names a date."""
    try:
        return max(0.0, float(response.headers.get("retry-after", 0)))
    except ValueError:
        return 0.0
