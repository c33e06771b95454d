"""Whether and when a request that got no good answer is sent again: as the server asks, else ever later."""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Mapping

# The server's own troubles, and what it asks to try later.
PASSING_STATUS = frozenset({408, 409, 425, 429})
FIRST_SECONDS, LONGEST_SECONDS = 0.5, 8.0
# A server that asks for more is not waited for.
MOST_SECONDS = 120.0


def passes(status: int) -> bool:
    """Whether a status tells of what may be gone later."""
    return status in PASSING_STATUS or status >= 500


def own_wait(tried: int) -> float:
    """Seconds before the next try, after so many: doubled each time, less up to a quarter by chance."""
    longest: float = min(FIRST_SECONDS * 2.0 ** min(tried - 1, 10), LONGEST_SECONDS)
    return longest * (1 - random.uniform(0, 0.25))


def wait_after(status: int, headers: Mapping[str, str], tried: int) -> float | None:
    """Seconds to wait after an answer that is no success; None where no other try is worth it.

    Parameters
    ----------
    status : int
    headers : mapping
        Of the answer; by ``x-should-retry`` some servers say it themselves.
    tried : int
        How often the request has been sent.
    """
    said = headers.get("x-should-retry")
    asked = _asked_for(headers)
    if said == "false" or asked > MOST_SECONDS or not (said == "true" or passes(status)):
        return None
    return asked or own_wait(tried)


def _asked_for(headers: Mapping[str, str]) -> float:
    """Seconds that an answer asks to wait; 0 where it asks nothing that makes sense."""
    for name, units in (("retry-after-ms", 1000), ("retry-after", 1)):
        said = headers.get(name, "")
        try:
            seconds = float(said) / units
        except ValueError:
            seconds = _until(said)
        if 0 < seconds < math.inf:
            return seconds
    return 0.0


def _until(date: str) -> float:
    """Seconds from now to a date of HTTP; 0 for what is none."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, OverflowError, OSError):
        return 0.0
