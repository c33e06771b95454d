"""Talk to an OpenAI-compatible server: with retries, timeouts, a budget, and a key that stays hidden."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generators.service_settings import ServiceSettings

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

# Too many requests, a timeout or a conflict on the way, and the server's own troubles: may pass.
PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
# The key or the address is wrong, or the server sends us elsewhere: every request would go so.
REFUSING_STATUS = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405, 407})
# The codes by which servers tell that they decline the content of a request.
CONTENT_CODES = ("content_policy", "content_filter", "moderation_blocked", "safety")
SHOWN_CHARACTERS = 200
MOST_BYTES = 256 * 1024 * 1024
# Servers disagree on wider seeds; all take 31 bits.
SEED_MASK = (1 << 31) - 1


class ServiceError(ValueError):
    """One request failed for good; the message says how. The row of it fails, others go on."""


class ServiceRefused(ServiceError):
    """No request of ours gets through (key, address, budget, an outage): no point in going on."""


class ServiceUnanswered(ServiceError):
    """No answer that means anything: no connection, a timeout, or the server's own trouble.

    Attributes
    ----------
    wait
        Seconds that the server asks to wait.
    connected
        Whether there was a connection at all.
    """

    def __init__(self, failure: str, wait: float = 0.0, connected: bool = True) -> None:
        super().__init__(failure)
        self.wait = wait
        self.connected = connected


class ContentRefused(Exception):
    """The server declined the content of one request."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a multipart request."""

    field: str
    name: str
    content: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: status, the ``retry-after`` header, and the body."""

    status: int
    wait: str
    content: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is one of the two hundreds."""
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any] | None:
        """The body as a JSON object; None when it is anything else."""
        try:
            answer = json.loads(self.content)
        except (ValueError, RecursionError):
            return None
        return answer if isinstance(answer, dict) else None

    def text(self) -> str:
        """The body on one line."""
        return " ".join(self.content.decode("utf-8", "replace").split())

    def retry_after(self) -> float:
        """Seconds that the server asks to wait; 0 when it says nothing, or names a date."""
        try:
            seconds = float(self.wait)
        except ValueError:
            return 0.0
        return seconds if 0 <= seconds < float("inf") else 0.0

    def content_refused(self) -> bool:
        """Whether the error says that the content is declined."""
        codes = f"{self._error('code')} {self._error('type')}"
        return any(code in codes for code in CONTENT_CODES)

    def out_of_quota(self) -> bool:
        """Whether the account has no credit left, which waiting does not mend."""
        return "insufficient_quota" in self._error("code")

    def _error(self, field: str) -> str:
        error = (self.json() or {}).get("error")
        return str(error.get(field)) if isinstance(error, dict) else ""


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
        # Of its own: the global generator is not ours to move on.
        self._spread = random.Random()

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
            When it refuses the key or doesn't know the address or model, or the budget is spent.
        ServiceUnanswered
            When no try gave an answer; `connected` where any of them had a connection.
        ServiceError
            When it refuses this request.
        """
        tries = self.settings.retries + 1
        connected = False
        for attempt in range(tries):
            try:
                return self._try(path, fields, uploads)
            except ServiceUnanswered as error:
                failure = error
            connected |= failure.connected
            if attempt + 1 < tries:
                pause = self.settings.backoff * 2**attempt * self._spread.uniform(1, 1.25)
                pause = min(max(pause, failure.wait), self.settings.max_backoff)
                logger.info("%s; trying again in %.1f s", failure, pause)
                time.sleep(pause)
        told = f"{failure} ({tries} tries)" if tries > 1 else str(failure)
        raise ServiceUnanswered(told, connected=connected)

    def _try(self, path: str, fields: dict[str, Any], uploads: Sequence[Upload]) -> dict[str, Any]:
        """One try; raises as `post` does."""
        import httpx

        self.open()
        self._spend()
        try:
            reply = self._send(path, fields, uploads)
        except httpx.TransportError as error:
            slow = isinstance(error, httpx.TimeoutException)
            failure = (
                f"no answer within {self.settings.timeout:g} s"
                if slow
                else self._hidden(f"connection failed: {error or type(error).__name__}")
            )
            connected = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
            raise ServiceUnanswered(failure, connected=connected) from None
        answer = reply.json()
        if reply.is_success and answer is not None:
            return answer
        shown = self._hidden(reply.text())[:SHOWN_CHARACTERS] or "(empty)"
        if reply.is_success:
            raise ServiceUnanswered(f"the answer is not a JSON object: {shown}")
        failure = f"status {reply.status}: {shown}"
        if reply.out_of_quota():
            raise ServiceRefused(f"{self.settings.base_url} has no quota left: {failure}")
        if reply.status in PASSING_STATUS:
            raise ServiceUnanswered(failure, reply.retry_after())
        if reply.status == 400 and reply.content_refused():
            raise ContentRefused(shown)
        if reply.status in REFUSING_STATUS:
            raise ServiceRefused(f"{self.settings.base_url} refuses: {failure}")
        raise ServiceError(failure)

    def _send(self, path: str, fields: dict[str, Any], uploads: Sequence[Upload]) -> Reply:
        """One request and its whole answer, within the timeout and a size.

        The timeout of httpx is one between two packets; a server that drips would never reach it.
        """
        import httpx

        client = self._client
        assert client is not None
        body: dict[str, Any] = {"json": fields}
        if uploads:
            files = [(one.field, (one.name, one.content, one.media_type)) for one in uploads]
            form = {name: str(value) for name, value in fields.items() if value is not None}
            body = {"data": form, "files": files}
        deadline = time.monotonic() + self.settings.timeout
        with client.stream("POST", f"{self.settings.base_url}/{path}", **body) as response:
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer takes too long")
                if len(content) > MOST_BYTES:
                    raise ServiceError(f"the answer is larger than {MOST_BYTES} bytes")
            wait = response.headers.get("retry-after", "")
            return Reply(response.status_code, wait, bytes(content))

    def _spend(self) -> None:
        """Count one request against the budget."""
        with self._lock:
            budget = self.settings.max_requests
            if budget is not None and self.sent >= budget:
                raise ServiceRefused(
                    f"the budget of {budget} requests (max_requests) is spent; what was done stands"
                )
            self.sent += 1

    def _hidden(self, text: str) -> str:
        """The text without the key, which a server or a library may repeat."""
        return text.replace(self._key, "***") if self._key else text
