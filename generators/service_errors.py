"""How a request to a server fails: that one alone, its content, or all that would follow."""

from __future__ import annotations


class ServiceError(ValueError):
    """One request failed for good; the message says how. The row of it fails, others go on."""


class WrongRequest(ServiceError):
    """The server finds the request itself wrong: a model or a field that it doesn't know."""


class ServiceRefused(ServiceError):
    """No request of ours gets through (key, address, budget, an outage): no point in going on."""


class ServiceUnanswered(ServiceError):
    """No answer that means anything: no connection, a timeout, or the server's own trouble.

    Attributes
    ----------
    connected
        Whether there was a connection at all.
    """

    def __init__(self, failure: str, connected: bool = True) -> None:
        super().__init__(failure)
        self.connected = connected


class ContentRefused(Exception):
    """The server declined the content of one request."""
