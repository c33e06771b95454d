"""Errors of the input and the config: each is one line that names field, rule and value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

# The type of an error whose value is not to be shown.
SECRET = "secret"
# What pydantic adds to the place of an error for each kind of value that a field may take.
_KIND = re.compile(r"(constrained-)?(int|float|str|bool|dict)|literal\[.*\]")


class ConfigError(ValueError):
    """The config or the input is wrong; the run ends before it starts, with exit status 2."""


class RunLocked(RuntimeError):
    """Another run of the same dataset is under way; exit status 3."""


class RunFailed(RuntimeError):
    """The run itself failed; exit status 1. What was done stays."""


def without_password(address: str | None) -> str | None:
    """Refuse an address with a user or password in it, for settings are kept beside the output."""
    if address and "@" in urlsplit(address).netloc:
        raise PydanticCustomError(
            SECRET,
            "must not hold a user or password; put them where the file system looks for them,"
            " such as its environment variables",
        )
    return address


def first_error(error: ValidationError, section: str = "") -> str:
    """The first error of a pydantic validation as `field: rule; got value`."""
    details = error.errors(include_url=False)
    first = details[0]
    place = _place(first["loc"])
    # A field that may be a number or a word is wrong in one way for each.
    ways = [each for each in details if _place(each["loc"]) == place]
    field = ".".join(part for part in (section, *place) if part)
    rule = " or ".join(dict.fromkeys(_rule(each["msg"]) for each in ways))
    rule = rule.replace(" or input should be ", ", or ")
    if first["type"] == "extra_forbidden":
        rule = "unknown key"
    line = f"{field}: {rule}"
    value = first.get("input")
    if first["type"] not in ("extra_forbidden", "missing", SECRET) and not isinstance(value, dict):
        line += f"; got {value!r}"
    if len(details) > len(ways):
        line += f" (and {len(details) - len(ways)} more)"
    return " ".join(line.split())


def _place(location: Iterable[str | int]) -> tuple[str, ...]:
    return tuple(part for part in map(str, location) if not _KIND.fullmatch(part))


def _rule(message: str) -> str:
    rule = message.removeprefix("Value error, ")
    return rule[0].lower() + rule[1:]
