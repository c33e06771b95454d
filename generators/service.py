"""Talk to an OpenAI-compatible server: tries again, a budget, a hidden key, what an answer means."""

from __future__ import annotations

import asyncio
import atexit
import itertools
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
from generators.service_waits import own_wait, passes, wait_after
from generators.usage import Usage

if TYPE_CHECKING:
    from generators.service_transport import Reply, Transport

Result = TypeVar("Result")

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
        self._transport: Transport | None = None
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
            if self._transport is not None:
                return
            name = self.settings.api_key_env
            key = "" if name is None else os.environ.get(name, "").strip()
            if name is not None and not key:
                raise ServiceRefused(
                    f"environment variable {name} is not set; put the key for "
                    f"{self.settings.base_url} there, or set api_key_env to null"
                )
            if not key.isprintable():
                raise ServiceRefused(f"environment variable {name} holds no key, but several lines")
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="service", daemon=True)
            thread.start()
            try:
                made = asyncio.run_coroutine_threadsafe(self._made(key), loop).result()
            except BaseException:
                _stop(loop, thread)
                raise
            self._transport, self._loop, self._thread = made, loop, thread
            self._key = key or None
            atexit.register(self.close)

    async def _made(self, key: str) -> Transport:
        from generators.service_transport import Transport

        settings = self.settings
        headers = {"Accept": "application/json", "User-Agent": "rag4dmc"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return Transport(
            settings.base_url,
            headers,
            settings.timeout,
            # Less than the whole answer has, so that it is told apart from a slow answer.
            min(CONNECT_SECONDS, settings.timeout / 2),
            settings.concurrency,
        )

    def close(self) -> None:
        """Close the connections and forget the key."""
        atexit.unregister(self.close)
        with self._lock:
            transport, loop, thread = self._transport, self._loop, self._thread
            self._transport = self._loop = self._thread = self._key = None
        if transport is not None and loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(_end(transport), loop).result()
            _stop(loop, thread)

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
        from generators.service_transport import NoAnswer, TooLarge

        assert self._transport is not None
        # One name for a request and its retries, by which servers know them.
        headers = {"Idempotency-Key": f"rag4dmc-{self._session}-{next(self._numbers)}"}
        connected = False
        for tried in itertools.count(1):
            self._spend()
            try:
                reply = await self._transport.send(path, body, uploads, headers)
            except TooLarge as error:
                raise ServiceError(str(error)) from None
            except NoAnswer as error:
                connected |= error.connected
                failure: Exception = ServiceUnanswered(
                    self._hidden(str(error)) + _of(tried), connected
                )
                wait: float | None = own_wait(tried)
            else:
                connected = True
                answer = self._heard(reply)
                if answer is not None:
                    return answer
                failure, wait = self._refusal(reply, tried)
            if wait is None or tried > self.settings.retries:
                raise failure from None
            await asyncio.sleep(wait)
        raise AssertionError

    def _heard(self, reply: Reply) -> dict[str, Any] | None:
        """Count an answer; what it says where it is a success that means something."""
        if reply.status == 429:
            self.gate.refused()
        elif reply.success:
            self.gate.taken()
        answer = reply.answer
        self._use(Usage.of_answer(reply.status, answer))
        return answer if reply.success and isinstance(answer, dict) else None

    def _refusal(self, reply: Reply, tried: int) -> tuple[Exception, float | None]:
        """What an answer that is of no use means, and in how many seconds to try again, if at all."""
        shown = self._hidden(reply.text)[:SHOWN_CHARACTERS] or "(empty)"
        if reply.success:
            told = f"the answer is not a JSON object: {shown}"
            return ServiceUnanswered(told + _of(tried), True), own_wait(tried)
        status, failure = reply.status, f"status {reply.status}: {shown}"
        if reply.out_of_quota:
            # Waiting mends no account.
            return ServiceRefused(f"{self.settings.base_url} has no quota left: {failure}"), None
        wait = wait_after(status, reply.headers, tried)
        codes = f"{reply.error_field('code')} {reply.error_field('type')}"
        if passes(status):
            return ServiceUnanswered(failure + _of(tried), True), wait
        if status == 400 and any(code in codes for code in CONTENT_CODES):
            return ContentRefused(shown), wait
        if status in REFUSING_STATUS:
            return ServiceRefused(f"{self.settings.base_url} refuses: {failure}"), wait
        return (WrongRequest if status in WRONG_STATUS else ServiceError)(failure), wait

    def _spend(self) -> None:
        """Count one request against the budget.

        Raises
        ------
        ServiceRefused
            When it is spent.
        """
        budget = self.settings.max_requests
        if budget is not None and self.sent >= budget:
            raise ServiceRefused(
                f"the budget of {budget} requests (max_requests) is spent; what was done stands"
            )
        self.sent += 1
        self._use(Usage(requests=1))

    def _use(self, usage: Usage) -> None:
        self.used += usage

    def _hidden(self, text: str) -> str:
        """The text without the key, which a server or a library may repeat."""
        return text.replace(self._key, "***") if self._key else text


async def _end(transport: Transport) -> None:
    """Cancel what is still under way, and close the connections."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await transport.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _of(tries: int) -> str:
    return f" ({tries} tries)" if tries > 1 else ""
