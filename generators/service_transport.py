"""One try of a request, by aiohttp: a whole answer, within a time and a size.

Imported when a server is asked, for aiohttp takes a while to import. Why aiohttp itself and no client of
a vendor's above it: with many requests under way the processor is what limits them, and most of its time
went there (tests/benchmarks/generators.md).
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi

from generators.sent_pictures import Upload
from generators.service_errors import ServiceRefused

MOST_BYTES = 256 * 1024 * 1024
# Less than servers keep an idle connection (uvicorn 5 s): one that is closed meanwhile costs a try.
IDLE_SECONDS = 4.0


class NoAnswer(Exception):
    """A try that gave no answer; `connected` where it had a connection."""

    def __init__(self, told: str, connected: bool) -> None:
        super().__init__(told)
        self.connected = connected


class TooLarge(Exception):
    """An answer that can't be taken."""


@dataclass(frozen=True)
class Reply:
    """An answer of a server, read to its end."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def success(self) -> bool:
        """Whether the server took the request."""
        return 200 <= self.status < 300

    @cached_property
    def answer(self) -> Any:
        """What its JSON says; None where it is none."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None

    @property
    def text(self) -> str:
        """Its content in one line."""
        return " ".join(self.content.decode(errors="replace").split())

    def error_field(self, field: str) -> str:
        """A field of the error that it tells; "" where it tells none."""
        error = self.answer.get("error") if isinstance(self.answer, dict) else None
        return str(error.get(field)) if isinstance(error, dict) else ""

    @property
    def out_of_quota(self) -> bool:
        """Whether the account has no credit left."""
        return self.status >= 400 and "insufficient_quota" in self.error_field("code")


class Transport:
    """Connections to one server; made and used within one event loop.

    Parameters
    ----------
    base_url : str
    headers : mapping
        That go with every request.
    seconds, connect_seconds : float
        For a whole answer, and for a connection.
    connections : int
        Most at once.

    Raises
    ------
    ServiceRefused
        The environment names a proxy of a kind that can't be used.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        seconds: float,
        connect_seconds: float,
        connections: int,
    ) -> None:
        self._base_url = base_url
        self._seconds = seconds
        self._connect_seconds = connect_seconds
        self._proxy = proxy_of(base_url)
        trusted: Any = True
        if "https" in (urlsplit(base_url).scheme, urlsplit(self._proxy or "").scheme):
            trusted = ssl.create_default_context()
            # Some systems have none of their own.
            trusted.load_verify_locations(certifi.where())
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections, keepalive_timeout=IDLE_SECONDS, ssl=trusted
            ),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            # aiohttp's own timeouts between two packets would never end an answer that drips.
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=connect_seconds),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def send(
        self,
        path: str,
        body: bytes | dict[str, Any],
        uploads: Sequence[Upload],
        headers: Mapping[str, str],
    ) -> Reply:
        """Send a request once.

        Raises
        ------
        NoAnswer
            No connection, or no whole answer in time.
        TooLarge
            The answer is larger than `MOST_BYTES`.
        """
        data: Any = body
        if isinstance(body, bytes):
            headers = {**headers, "Content-Type": "application/json"}
        else:
            data = _form(body, uploads)
        content = bytearray()
        try:
            # The address is the one that was consented to: no redirect is followed.
            async with self._session.post(
                f"{self._base_url}/{path}",
                data=data,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy,
            ) as answer:
                async for chunk in answer.content.iter_any():
                    content += chunk
                    if len(content) > MOST_BYTES:
                        raise TooLarge(f"the answer is larger than {MOST_BYTES} bytes")
        except (aiohttp.ClientError, OSError) as error:
            raise self._no_answer(error) from error
        return Reply(answer.status, answer.headers, bytes(content))

    def _no_answer(self, error: Exception) -> NoAnswer:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return NoAnswer(f"no connection within {self._connect_seconds:g} s", False)
        if isinstance(error, TimeoutError):
            return NoAnswer(f"no answer within {self._seconds:g} s", True)
        told = f"connection failed: {str(error) or type(error).__name__}"
        unmade = aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError
        return NoAnswer(told, not isinstance(error, unmade))


def proxy_of(address: str) -> str | None:
    """The proxy that the environment names for an address, if any (``https_proxy``, ``no_proxy``).

    aiohttp would take passwords of ``~/.netrc`` with it.

    Raises
    ------
    ServiceRefused
        It is none that speaks HTTP.
    """
    url = urlsplit(address)
    if proxy_bypass(url.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found:
        return None
    found = found if "://" in found else f"http://{found}"
    scheme = urlsplit(found).scheme
    if scheme not in ("http", "https"):
        raise ServiceRefused(
            f"the environment names a proxy of scheme {scheme!r} for {address};"
            " only http and https are known: set no_proxy, or another proxy"
        )
    return found


def _form(fields: Mapping[str, Any], uploads: Sequence[Upload]) -> aiohttp.FormData:
    """A multipart body."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        for field, text in _flat(name, value):
            form.add_field(field, text)
    for one in uploads:
        form.add_field(one.field, one.content, filename=one.name, content_type=one.media_type)
    return form


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """A value as fields of a form: what is within others by brackets, as in ``tags[]``."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flat(f"{name}[{key}]", one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _flat(f"{name}[]", one)
    elif value is not None:
        yield name, value if isinstance(value, str) else json.dumps(value)
