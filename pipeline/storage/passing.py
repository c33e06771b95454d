"""Which errors may be gone a moment later: those of a machine, the network or a server, not of data."""

from __future__ import annotations

import errno
from typing import Any

# Trying again mends none of these, told by number or by class.
_LASTING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP}
)
_LASTING_CLASSES = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)
# What the network does to clients whose errors are no OSError, by name: nothing is imported for it.
_PASSING_CLASSES = frozenset(
    {
        "httpx.TransportError",
        "aiohttp.client_exceptions.ClientConnectionError",
        "aiohttp.client_exceptions.ClientPayloadError",
        "botocore.exceptions.HTTPClientError",
        "botocore.exceptions.ConnectionError",
    }
)
_PASSING_STATUS = (408, 425, 429)


def may_pass(error: BaseException) -> bool:
    """Whether an error may be gone a moment later: I/O, the network, a server's own trouble.

    Bad data, wrong settings and a full disk stay as they are.
    """
    if {f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__} & _PASSING_CLASSES:
        return True
    status = _status(error)
    if status is not None:
        return status >= 500 or status in _PASSING_STATUS
    return (
        isinstance(error, OSError)
        and error.errno not in _LASTING
        and not isinstance(error, _LASTING_CLASSES)
    )


def comes_of_a_picture(error: BaseException) -> bool:
    """Whether an error is Pillow's about a picture: an `OSError` as well, but none that a system numbered."""
    return (
        isinstance(error, OSError)
        and error.errno is None
        and (type(error) is OSError or type(error).__name__ == "UnidentifiedImageError")
    )


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of httpx, aiohttp or botocore tells, if any."""
    reply = getattr(error, "response", None)
    if isinstance(reply, dict):
        found: Any = reply.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(reply, "status_code", None) or getattr(error, "status", None)
    return found if isinstance(found, int) else None
