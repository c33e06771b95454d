"""How many candidates are drawn for a row, and from what, as a config says it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from generators.base import Needs
from kb.embeddings import Modality
from pipeline.dataset.encoding import ImageFormat


class Ungrounded(BaseModel):
    """Shares of the candidates that are drawn without an example, by missing half."""

    model_config = ConfigDict(extra="forbid")

    text: float = Field(0.5, ge=0, le=1, description="share of the captions, rounded down")
    image: float = Field(0.0, ge=0, le=1, description="share of the images, rounded down")


class Sequential(BaseModel):
    """Candidates drawn in rounds, until one more is not expected to be worth it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    least: int = Field(2, ge=1, description="candidates of the first round")
    # What one more gains is summed up in time that grows with its square.
    most: int = Field(10, ge=1, le=64, description="candidates of all rounds together, at most 64")
    min_improvement: float = Field(
        0.001,
        ge=0,
        description="a row is drawn on for while the expected improvement of one more candidate, in"
        " cosine to the truth, is at least this",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Sequential:
        if self.least > self.most:
            raise ValueError(f"least must be at most most; got {self.least} > {self.most}")
        return self

    @property
    def rounds(self) -> tuple[int, ...]:
        """How many candidates are there after each round: half as many again, and one at the least."""
        ends = [self.least]
        while ends[-1] < self.most:
            ends.append(min(self.most, ends[-1] + max(1, ends[-1] // 2)))
        return tuple(ends)


class SecondLook(BaseModel):
    """Candidates drawn once more, from other examples, for rows of which little is expected."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    below: float = Field(
        ge=-1,
        le=1,
        description="rows below this confidence, the cosine to the truth that is expected of them, are"
        " looked at again",
    )
    examples: int = Field(3, ge=1, description="pairs that such a row is shown, none of them again")
    candidates: int | None = Field(
        None,
        ge=1,
        le=64,
        description="drawn then; by default as many as n says, least of it in rounds",
    )


def _form(value: Any) -> str:
    return "dict" if isinstance(value, (dict, Sequential)) else "int"


class GenerationSettings(BaseModel):
    """How many candidates are drawn for a row, and from what."""

    model_config = ConfigDict(extra="forbid")

    n: Annotated[
        Annotated[int, Field(ge=1), Tag("int")] | Annotated[Sequential, Tag("dict")],
        Discriminator(_form),
    ] = Field(
        4,
        description="candidates a row and attempt; {least, most}: in rounds, as many as the run's check"
        " finds worth it",
    )
    attempts: int = Field(2, ge=1, description="how often a row without a candidate is tried")
    grounded: bool = Field(
        True,
        description="give the generator the retrieved pairs (false: the variant `direct`)",
    )
    ungrounded: Ungrounded = Field(
        default_factory=lambda: Ungrounded(),
        description="shares of the n candidates that are drawn without an example, in case it"
        " misleads; none where a generator makes nothing without one; paper: none",
    )

    second_look: SecondLook | None = Field(
        None,
        description="{below}: retrieve anew for rows below so much confidence, by the best candidate too,"
        " draw more, and keep the better of both; needs the run's check",
    )
    image_format: ImageFormat = Field(
        default_factory=lambda: ImageFormat(),
        description="how generated pictures are written, and judged: as they are read back",
    )

    @property
    def rounds(self) -> tuple[int, ...]:
        """How many candidates of an attempt are there after each of its rounds."""
        return (self.n,) if isinstance(self.n, int) else self.n.rounds

    @property
    def least(self) -> int:
        """Candidates that an attempt has at the least."""
        return self.rounds[0]

    @property
    def most(self) -> int:
        """Candidates that an attempt has at most."""
        return self.rounds[-1]

    def draws(self, rows: int, checked: int, stops: bool, again: int = 0) -> list[int]:
        """Candidates of so many rows and checked pairs, [least, most]: in one attempt, or in all.

        `stops`: rows end where one more doesn't pay; all their candidates are drawn otherwise. `again`:
        those of a second look, which every checked pair gets (`drawn_again`).
        """
        least = (self.least if stops else self.most) * rows + (self.most + again) * checked
        return [least, (self.most + again) * self.attempts * (rows + checked)]

    @property
    def told(self) -> str:
        """How many candidates an attempt has, for a reader."""
        return str(self.n) if isinstance(self.n, int) else f"{self.least} to {self.most}"

    @property
    def min_improvement(self) -> float | None:
        """The price of one more candidate; None where as many are drawn whatever it is."""
        return None if isinstance(self.n, int) else self.n.min_improvement

    def grounded_of(self, missing: Modality, needs: Needs) -> tuple[bool, ...]:
        """Which of the candidates are drawn from examples, in their order, by what the generator needs.

        All, where it makes nothing without one; none, where it takes nothing of an example. Those
        without are spread evenly, so that the first few of many are what few would be.
        """
        if not (self.grounded and needs.any):
            return (False,) * self.most
        share = 0.0 if needs.example else getattr(self.ungrounded, missing)
        without = [int(count * share) for count in range(self.most + 1)]
        return tuple(before == after for before, after in pairwise(without))

    def look_of(self, missing: Modality, needs: Needs) -> SecondLook | None:
        """How rows that lack this half are looked at again; None where no candidate takes an example."""
        return self.second_look if any(self.grounded_of(missing, needs)) else None

    def drawn_again(self, missing: Modality, needs: Needs) -> int:
        """Candidates of a second look."""
        look = self.look_of(missing, needs)
        return 0 if look is None else look.candidates or self.least

    def identity(self, missing: Modality, needs: Needs) -> dict[str, Any]:
        """What the candidates of rows that lack this half depend on, but for `attempts`."""
        written = {"image_format": self.image_format.identity()} if missing == "image" else {}
        look = self.look_of(missing, needs)
        again = {} if look is None else {"second_look": look.model_dump()}
        return {
            "n": self.n if isinstance(self.n, int) else self.n.model_dump(),
            "from examples": self.grounded_of(missing, needs),
            **written,
            **again,
        }
