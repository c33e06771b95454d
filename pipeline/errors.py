"""Errors of the input and the config: each is one line that names field, rule and value."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

# The type of an error whose value is not to be shown.
SECRET = "secret"


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
    parts = [section, *(str(part) for part in first["loc"])]
    field = ".".join(part for part in parts if part)
    rule = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        rule = "unknown key"
    line = f"{field}: {rule[0].lower() + rule[1:]}"
    value = first.get("input")
    if first["type"] not in ("extra_forbidden", "missing", SECRET) and not isinstance(value, dict):
        line += f"; got {value!r}"
    if len(details) > 1:
        line += f" (and {len(details) - 1} more)"
    return " ".join(line.split())
