"""Connections to one server that are found at once, however many there are.

The pool of httpx looks through all of its connections at each request and at each answer, and asks the
system of each whether it still stands: with 64 of them that is nearly half of a request's work.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from urllib.request import getproxies

import httpcore2
import httpx2

# A connection that was used so lately is taken to stand; one that does not is found out by the request.
FRESH_SECONDS = 1.0
# After so long without use it is not used again, as httpx has it.
IDLE_SECONDS = 5.0


def lanes_to(most: int) -> dict[str, Any]:
    """Options for ``httpx2.AsyncClient``: at most so many connections, in lanes where they are direct.

    Through a proxy of the environment they go as httpx does it.
    """
    limits = httpx2.Limits(max_connections=most)
    if getproxies().keys() & {"http", "https", "all"}:
        return {"limits": limits}
    return {"limits": limits, "transport": Lanes()}


class Lanes(httpx2.AsyncBaseTransport):
    """Connections to one server; the one that was used last is used first.

    Whoever asks bounds how many there are.
    """

    def __init__(self) -> None:
        self._trusted = httpx2.create_ssl_context()
        self._all: set[httpcore2.AsyncHTTPConnection] = set()
        # Each with the moment since which it is free.
        self._free: list[tuple[httpcore2.AsyncHTTPConnection, float]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        extensions = dict(request.extensions)
        lane = await self._standing()
        if lane is None:
            origin = httpcore2.Origin(url.raw_scheme, url.raw_host, _port(url))
            lane = httpcore2.AsyncHTTPConnection(origin, self._trusted, IDLE_SECONDS)
            self._all.add(lane)
        elif trace := extensions.pop("trace", None):
            # Once is enough: each step of a request would be traced.
            await trace("http11.reused", {})
        asked = httpcore2.Request(
            request.method,
            httpcore2.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=extensions,
        )
        try:
            with _as_of_httpx():
                response = await lane.handle_async_request(asked)
        except BaseException:
            await self._leave(lane)
            raise
        return httpx2.Response(
            response.status,
            headers=response.headers,
            stream=_Taken(response, lambda: self._leave(lane)),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        for lane in self._all:
            await lane.aclose()
        self._all.clear()
        self._free.clear()

    async def _standing(self) -> httpcore2.AsyncHTTPConnection | None:
        """A connection that can be used again."""
        while self._free:
            lane, since = self._free.pop()
            if time.monotonic() - since < FRESH_SECONDS or not lane.has_expired():
                return lane
            self._all.discard(lane)
            await lane.aclose()
        return None

    async def _leave(self, lane: httpcore2.AsyncHTTPConnection) -> None:
        """A request is over."""
        if lane.is_available():
            self._free.append((lane, time.monotonic()))
        else:
            self._all.discard(lane)
            await lane.aclose()


class _Taken(httpx2.AsyncByteStream):
    """An answer's content, whose lane is free again once it is closed."""

    def __init__(self, response: httpcore2.Response, leave: Callable[[], Any]) -> None:
        self._response = response
        self._leave = leave

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_of_httpx():
            async for chunk in cast(AsyncIterable[bytes], self._response.stream):
                yield chunk

    async def aclose(self) -> None:
        try:
            with _as_of_httpx():
                await self._response.aclose()
        finally:
            await self._leave()


@contextmanager
def _as_of_httpx() -> Iterator[None]:
    """Errors of the connection as those of httpx with their names."""
    try:
        yield
    except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        named = getattr(httpx2, type(error).__name__, httpx2.TransportError)
        raise named(str(error)) from error


def _port(url: httpx2.URL) -> int:
    return url.port or {"https": 443}.get(url.scheme, 80)
