"""What the client of ``openai`` lacks: a budget, and an upper time and size for a whole answer.

Requests go out by aiohttp, as ``openai`` offers it: with many connections that costs less than httpx's pool.

Imported when a server is asked, for ``openai`` takes a while to import.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx2
from openai import DefaultAioHttpClient, OpenAIError

from generators.gate import Gate
from generators.usage import Usage

MOST_BYTES = 256 * 1024 * 1024
SHOWN_CHARACTERS = 200


@dataclass
class Tries:
    """What became of the tries of one request: their number, and whether any had a connection."""

    count: int = 0
    connected: bool = False


# Of the request that the running task waits for.
TRIES: ContextVar[Tries] = ContextVar("tries")


class Unsendable(OpenAIError):
    """A request that must not go out, or whose answer can't be taken; ``openai`` does not retry it."""


class GuardedClient(DefaultAioHttpClient):
    """An HTTP client whose answers are whole, and are JSON objects where they are successes.

    The timeout of httpx is one between two packets; a server that drips would never reach it.

    Parameters
    ----------
    seconds : float
        For a whole answer.
    spend : callable
        Called before each try; may raise `Unsendable`.
    gate : Gate
        Told of each answer whether the server found it one too many.
    used : callable
        Told of each answer what it took.
    **options
        Of ``httpx2.AsyncClient``.
    """

    def __init__(
        self,
        seconds: float,
        spend: Callable[[], None],
        gate: Gate,
        used: Callable[[Usage], None],
        **options: Any,
    ) -> None:
        # The address is the one that was consented to.
        super().__init__(follow_redirects=False, **options)
        self._seconds = seconds
        self._spend = spend
        self._gate = gate
        self._used = used

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """One try: the whole answer, read.

        Raises
        ------
        Unsendable
            The budget is spent, or the answer is larger than `MOST_BYTES`.
        httpx2.RequestError
            What passes: no connection, no whole answer in time, or one that means nothing.
        """
        tries = TRIES.get()
        self._spend()
        tries.count += 1
        try:
            async with asyncio.timeout(self._seconds):
                response = await _whole(await super().send(request, **(options | {"stream": True})))
        except TimeoutError:
            tries.connected = True
            raise httpx2.ReadTimeout("the answer takes too long", request=request) from None
        except (httpx2.TransportError, aiohttp.ClientError, OSError) as error:
            raise _as_it_was(error, request, tries) from error
        tries.connected = True
        if response.status_code == 429:
            self._gate.refused()
        elif response.is_success:
            self._gate.taken()
        answer = _json(response)
        self._used(Usage.of_answer(response.status_code, answer))
        if response.is_success and not isinstance(answer, dict):
            text = " ".join(response.text.split())[:SHOWN_CHARACTERS]
            raise httpx2.RemoteProtocolError(
                f"the answer is not a JSON object: {text}", request=request
            )
        if out_of_quota(response):
            # Waiting mends no account.
            response.headers["x-should-retry"] = "false"
        return response


def error_field(response: httpx2.Response, field: str) -> str:
    """A field of the error that an answer tells; "" where it tells none."""
    answer = _json(response)
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get(field)) if isinstance(error, dict) else ""


def out_of_quota(response: httpx2.Response) -> bool:
    """Whether the account has no credit left."""
    return response.is_error and "insufficient_quota" in error_field(response, "code")


def _as_it_was(error: Exception, request: httpx2.Request, tries: Tries) -> httpx2.TransportError:
    """A failed try by its own name: a connection that breaks is a timeout to ``openai``'s transport."""
    cause = error.__cause__ if isinstance(error, httpx2.TransportError) else error
    cause = cause or error
    told = str(cause) or type(cause).__name__
    if isinstance(cause, aiohttp.ConnectionTimeoutError):
        return httpx2.ConnectTimeout(told, request=request)
    if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError):
        return httpx2.ConnectError(told, request=request)
    tries.connected = True
    if isinstance(cause, aiohttp.ServerTimeoutError | TimeoutError):
        return httpx2.ReadTimeout(told, request=request)
    return httpx2.ReadError(told, request=request)


async def _whole(streamed: httpx2.Response) -> httpx2.Response:
    """An answer with its content, which is decoded on the way."""
    content = bytearray()
    try:
        async for chunk in streamed.aiter_bytes():
            content += chunk
            if len(content) > MOST_BYTES:
                raise Unsendable(f"the answer is larger than {MOST_BYTES} bytes")
    finally:
        await streamed.aclose()
    headers = streamed.headers.copy()
    for name in ("content-encoding", "content-length", "transfer-encoding"):
        headers.pop(name, None)
    return httpx2.Response(
        streamed.status_code, headers=headers, content=bytes(content), request=streamed.request
    )


def _json(response: httpx2.Response) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None
