"""Talk to an OpenAI-compatible server through ``openai``: its retries, our budget, a hidden key."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import json
import os
import threading
import uuid
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from generators.gate import Gate
from generators.sent_pictures import Upload
from generators.service_errors import (
    ContentRefused,
    ServiceError,
    ServiceRefused,
    ServiceUnanswered,
    WrongRequest,
)
from generators.service_settings import ServiceSettings
from generators.usage import Usage

if TYPE_CHECKING:
    import httpx2
    import openai

Result = TypeVar("Result")

# The server's own troubles, and what it asks to try later.
PASSING_STATUS = frozenset({408, 409, 425, 429})
# The key or the address is wrong, or the server sends us elsewhere: every request would go so.
REFUSING_STATUS = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405, 407})
# The request is wrong: this one alone, or, as long as none succeeded, what all have in common.
WRONG_STATUS = frozenset({400, 422})
# The codes by which servers tell that they decline the content of a request.
CONTENT_CODES = ("content_policy", "content_filter", "moderation_blocked", "safety")
SHOWN_CHARACTERS = 200
CONNECT_SECONDS = 10.0


class Service:
    """A client of one server, with an event loop of its own.

    Parameters
    ----------
    settings : ServiceSettings

    Attributes
    ----------
    sent : int
        Requests that went out, retries included.
    gate : Gate
        How many of them are under way at once.
    used : Usage
        What they took.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.sent = 0
        self.gate = Gate(settings.concurrency)
        self.used = Usage()
        self._lock = threading.Lock()
        self._client: openai.AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._key: str | None = None
        self._session = uuid.uuid4().hex
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"Service({self.settings.base_url!r}, model={self.settings.model!r})"

    def open(self) -> None:
        """Read the key and make the client; sends nothing.

        Raises
        ------
        ServiceRefused
            When the variable that should hold the key is not set.
        """
        with self._lock:
            if self._client is not None:
                return
            name = self.settings.api_key_env
            key = "" if name is None else os.environ.get(name, "").strip()
            if name is not None and not key:
                raise ServiceRefused(
                    f"environment variable {name} is not set; put the key for "
                    f"{self.settings.base_url} there, or set api_key_env to null"
                )
            self._client = self._made(key)
            self._key = key or None
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="service", daemon=True
            )
            self._thread.start()
            atexit.register(self.close)

    def _made(self, key: str) -> openai.AsyncOpenAI:
        import httpx2
        from openai import AsyncOpenAI, Omit

        from generators.service_transport import GuardedClient

        settings = self.settings
        # Of the environment only the key is taken, and that from the variable that is named.
        headers: Any = {name: Omit() for name in ("OpenAI-Organization", "OpenAI-Project")}
        return AsyncOpenAI(
            # Where there is none `post` leaves it out, but `openai` wants one.
            api_key=key or "none",
            base_url=settings.base_url,
            timeout=httpx2.Timeout(settings.timeout, connect=self._connect_seconds),
            max_retries=settings.retries,
            default_headers=headers,
            http_client=GuardedClient(
                settings.timeout,
                self._spend,
                self.gate,
                self._use,
                limits=httpx2.Limits(max_connections=settings.concurrency),
            ),
        )

    def close(self) -> None:
        """Close the connections and forget the key."""
        atexit.unregister(self.close)
        with self._lock:
            client, loop, thread = self._client, self._loop, self._thread
            self._client = self._loop = self._thread = self._key = None
        if client is not None and loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(_end(client), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def start(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Future[Result]:
        """Begin with what asks the server; to cancel the future cancels it."""
        self.open()
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work(), self._loop)

    async def post(
        self, path: str, body: bytes | dict[str, Any], uploads: Sequence[Upload] = ()
    ) -> dict[str, Any]:
        """Send one request, again where that may help, and return the answer.

        Parameters
        ----------
        path : str
            Below ``base_url``, such as ``chat/completions``.
        body : bytes or dict
            JSON, or form fields where there are uploads.
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
        WrongRequest, ServiceError
            When it refuses this request.
        """
        import httpx2
        import openai

        from generators.service_transport import TRIES, Tries, Unsendable

        assert self._client is not None
        tries = Tries()
        TRIES.set(tries)
        form = "multipart/form-data" if uploads else "application/json"
        headers: dict[str, Any] = {"Content-Type": form}
        if self._key is None:
            headers["Authorization"] = openai.Omit()
        files = [(one.field, (one.name, one.content, one.media_type)) for one in uploads]
        try:
            reply = await self._client.post(
                f"/{path}",
                cast_to=httpx2.Response,
                body=None if isinstance(body, bytes) else body,
                content=body if isinstance(body, bytes) else None,
                files=files or None,
                options={"headers": headers, "idempotency_key": self._request_id()},
            )
        except Unsendable as error:
            raise (ServiceRefused if self._spent else ServiceError)(str(error)) from None
        except openai.APIStatusError as error:
            raise self._refusal(error.response, tries.count) from None
        except openai.APITimeoutError as error:
            failure = f"no answer within {self.settings.timeout:g} s"
            if isinstance(error.__cause__, httpx2.ConnectTimeout):
                failure = f"no connection within {self._connect_seconds:g} s"
            raise ServiceUnanswered(failure + _of(tries.count), tries.connected) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            told = self._hidden(str(cause) or type(cause).__name__)
            if not told.startswith("the answer"):
                told = f"connection failed: {told}"
            raise ServiceUnanswered(told + _of(tries.count), tries.connected) from None
        answer: dict[str, Any] = json.loads(reply.content)
        return answer

    def _refusal(self, reply: httpx2.Response, tries: int) -> Exception:
        """What an answer that is no success means."""
        from generators.service_transport import error_field, out_of_quota

        shown = self._hidden(" ".join(reply.text.split()))[:SHOWN_CHARACTERS] or "(empty)"
        status, failure = reply.status_code, f"status {reply.status_code}: {shown}"
        if out_of_quota(reply):
            return ServiceRefused(f"{self.settings.base_url} has no quota left: {failure}")
        if status in PASSING_STATUS or status >= 500:
            return ServiceUnanswered(failure + _of(tries))
        codes = f"{error_field(reply, 'code')} {error_field(reply, 'type')}"
        if status == 400 and any(code in codes for code in CONTENT_CODES):
            return ContentRefused(shown)
        if status in REFUSING_STATUS:
            return ServiceRefused(f"{self.settings.base_url} refuses: {failure}")
        return (WrongRequest if status in WRONG_STATUS else ServiceError)(failure)

    @property
    def _connect_seconds(self) -> float:
        """Less than the whole answer has, so that it is told apart from a slow answer."""
        return min(CONNECT_SECONDS, self.settings.timeout / 2)

    def _request_id(self) -> str:
        """A name for a request and its retries; that of ``openai`` asks the system for randomness."""
        return f"rag4dmc-{self._session}-{next(self._numbers)}"

    @property
    def _spent(self) -> bool:
        budget = self.settings.max_requests
        return budget is not None and self.sent >= budget

    def _spend(self) -> None:
        """Count one request against the budget."""
        from generators.service_transport import Unsendable

        if self._spent:
            raise Unsendable(
                f"the budget of {self.settings.max_requests} requests (max_requests) is spent;"
                " what was done stands"
            )
        self.sent += 1
        self._use(Usage(requests=1))

    def _use(self, usage: Usage) -> None:
        self.used += usage

    def _hidden(self, text: str) -> str:
        """The text without the key, which a server or a library may repeat."""
        return text.replace(self._key, "***") if self._key else text


async def _end(client: openai.AsyncOpenAI) -> None:
    """Cancel what is still under way, and close the connections."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await client.close()


def _of(tries: int) -> str:
    return f" ({tries} tries)" if tries > 1 else ""
