"""What a server counted of our requests, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests and what they took, as far as their answers tell.

    Parameters
    ----------
    requests : int
        That went out, those that were tried again included.
    answers : int
        Those that were answered with success.
    input_tokens, output_tokens : int
        As the answers' ``usage`` has them; 0 where it doesn't say.
    images : int
        Pictures that came.
    """

    requests: int = 0
    answers: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(own + more for own, more in zip(_values(self), _values(other), strict=True)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(own - less for own, less in zip(_values(self), _values(other), strict=True)))

    @classmethod
    def of_answer(cls, status: int, answer: Any) -> Usage:
        """What one answer tells, whatever became of it.

        Chats count ``prompt_tokens`` and ``completion_tokens``, images ``input_tokens`` and
        ``output_tokens``.

        Examples
        --------
        >>> Usage.of_answer(200, {"usage": {"prompt_tokens": 90, "completion_tokens": 12}})
        Usage(requests=0, answers=1, input_tokens=90, output_tokens=12, images=0)
        """
        if not isinstance(answer, dict):
            return cls()
        told = answer.get("usage")
        told = told if isinstance(told, dict) else {}
        data = answer.get("data")
        return cls(
            answers=int(200 <= status < 300),
            input_tokens=_count(told.get("prompt_tokens", told.get("input_tokens"))),
            output_tokens=_count(told.get("completion_tokens", told.get("output_tokens"))),
            images=len(data) if isinstance(data, list) else 0,
        )

    @classmethod
    def parse(cls, values: Mapping[str, int]) -> Usage:
        """The other way of `dump`."""
        return cls(**values)

    def dump(self) -> dict[str, int]:
        """By name, for JSON."""
        return asdict(self)


class Price(BaseModel):
    """What a server asks for; what is not given costs nothing."""

    model_config = ConfigDict(extra="forbid")

    input: float = Field(0.0, ge=0, allow_inf_nan=False, description="of a million tokens in")
    output: float = Field(0.0, ge=0, allow_inf_nan=False, description="of a million tokens out")
    image: float = Field(0.0, ge=0, allow_inf_nan=False, description="of a picture that comes")
    currency: str = Field("USD", min_length=1, description="of all of these")

    def cost(self, usage: Usage) -> float:
        """What a usage costs.

        Examples
        --------
        >>> Price(input=0.5, output=2).cost(Usage(input_tokens=3_000_000, output_tokens=500_000))
        2.5
        """
        tokens = usage.input_tokens * self.input + usage.output_tokens * self.output
        return tokens / MILLION + usage.images * self.image


# `dataclasses.astuple` copies each number deeply, some dozens of times a request.
_values: Callable[[Usage], tuple[int, ...]] = attrgetter(*(field.name for field in fields(Usage)))


def _count(told: Any) -> int:
    """A number that an answer tells; servers may tell anything."""
    return told if isinstance(told, int) and told > 0 else 0
