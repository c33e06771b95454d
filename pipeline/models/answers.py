"""What a generator answers, held to the contract of `generators.base` before anything is made of it.

A class of one's own may answer anything, and do what it likes with what it is handed. What it answers
wrongly, and what it raises, fails the row that it is answered for; where it can't answer the plainest
request either, it is the class that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from generators.asked import Asked, submit, without_pictures
from generators.base import (
    Candidate,
    CaptionRequest,
    Example,
    Generated,
    ImageRequest,
    Needs,
    well_formed,
)
from generators.device import is_lost
from generators.pictures import lent
from generators.service_errors import ServiceRefused
from generators.usage import Usage
from pipeline.models.sound import BrokenContract, kind_of, sound, told_of
from pipeline.storage.errors import ConfigError
from pipeline.storage.passing import comes_of_a_picture, may_pass

Request = CaptionRequest | ImageRequest


class Answers:
    """A captioner or image generator, of whose answers only those pass that can be used and kept.

    Parameters
    ----------
    generator : Any
        What is asked.
    section : str
        Its place in the config, for errors.
    needs : Needs
        What it takes of an example.
    """

    def __init__(self, generator: Any, section: str, needs: Needs | None = None) -> None:
        self.generator = generator
        self._needs = needs or Needs()
        self._section = section
        self._name = f"the {section.replace('_', ' ')}"
        self._worked = False

    def load(self) -> None:
        self.generator.load()

    def close(self) -> None:
        self.generator.close()

    def memory(self) -> int:
        """Bytes of the generator's weights."""
        return int(self.generator.memory())

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """One answer a request, in order; candidates are in the order of the request's seeds.

        After an error the requests are asked one by one, so that it fails those alone that it comes of.

        Raises
        ------
        ConfigError
            No answer keeps to the contract, not even that to the plainest request.
        Exception
            The generator's own, where it comes of the machine, the network or a server, or the
            plainest request meets it too.
        """
        try:
            answers = self._asked(requests)
            first: Exception | None = None
        except Exception as error:
            if _of_no_row(error):
                raise
            first = error
            answers = self._one_by_one(requests)
        wrong = [answer for answer in answers if isinstance(answer, _Wrong)]
        self._worked |= any(answer.candidates for answer in answers)
        if self._worked or not (first or wrong and len(wrong) == len(answers)):
            return answers
        self._worked = self._answers_plainly(type(requests[0]))
        if not self._worked:
            if first is not None and not isinstance(first, BrokenContract):
                raise first
            told = first or str(wrong[0].error).removeprefix(f"{self._name} ")
            raise ConfigError(f"{self._section}: {told}")
        return answers

    def submit(self, requests: Sequence[Request]) -> Asked:
        """The same, under way where the generator can be asked so.

        Raises
        ------
        ConfigError
            When its answers are gathered, and can't be told apart.
        """
        if not hasattr(self.generator, "submit"):
            return Asked.answered(self.generate(requests))
        bare = [without_pictures(request) for request in requests]

        def checked(given: Any) -> list[Generated]:
            try:
                return self._all_checked(bare, given)
            except BrokenContract as error:
                raise ConfigError(f"{self._section}: {error}") from error

        return submit(self.generator, [_lent(request) for request in requests]).then(checked)

    @property
    def used(self) -> Usage:
        """What the generator's server has counted, if it has one."""
        return getattr(self.generator, "used", Usage())

    def _answers_plainly(self, kind: type[Request]) -> bool:
        """Whether it answers the plainest request: then errors come of the rows."""
        grey = Image.new("RGB", (64, 64), "grey")
        example = (Example("plain", "a picture", grey),) if self._needs.example else ()
        half: Any = grey if kind is CaptionRequest else "a picture"
        try:
            (answer,) = self._asked([kind("plain", half, example, (1,))])
        except Exception as error:
            if _of_no_row(error):
                raise
            return False
        return bool(answer.candidates)

    def _one_by_one(self, requests: Sequence[Request]) -> list[Generated]:
        answers: list[Generated] = []
        for request in requests:
            try:
                answers += self._asked([request])
            except Exception as error:
                if _of_no_row(error):
                    raise
                answers.append(_Wrong(request.row_id, (), f"{self._name} {told_of(error)}"))
        return answers

    def _asked(self, requests: Sequence[Request]) -> list[Generated]:
        """The answers to requests; see `_all_checked`."""
        given = self.generator.generate([_lent(request) for request in requests])
        return self._all_checked(requests, given)

    def _all_checked(self, requests: Sequence[Request], given: Any) -> list[Generated]:
        """Answers as they can be judged and kept.

        Raises
        ------
        BrokenContract
            They can't be told apart.
        """
        if not isinstance(given, Iterable):
            raise BrokenContract(f"must answer with a list; got {kind_of(given)}")
        answers = list(given)
        if strange := [answer for answer in answers if not isinstance(answer, Generated)]:
            raise BrokenContract(f"must answer with Generated; got {kind_of(strange[0])}")
        asked, answered = ([one.row_id for one in each] for each in (requests, answers))
        if asked != answered:
            raise BrokenContract(
                f"must answer each request once and in order; asked for {_named(asked)}, got"
                f" answers for {_named(answered)}"
            )
        return [self._checked(*both) for both in zip(requests, answers, strict=True)]

    def _checked(self, request: Request, answer: Generated) -> Generated:
        """An answer with those of its candidates that are as they must be, and why others are not."""
        held: dict[int, Candidate] = {}
        faults: list[str] = []
        given = answer.candidates if isinstance(answer.candidates, (tuple, list)) else (answer,)
        for candidate in given:
            try:
                made = sound(request, candidate)
                if made.seed in held:
                    raise BrokenContract(f"gave two candidates with the seed {made.seed}")
            except BrokenContract as error:
                faults.append(f"{self._name} {error}")
            else:
                held[made.seed] = made
        told = [] if answer.error is None else [well_formed(str(answer.error))]
        if len(held) < len(request.seeds) and not (faults or told):
            counts = f"{len(held)} candidates for {len(request.seeds)} seeds"
            faults.append(f"{self._name} gave {counts}, and no error")
        kind = _Wrong if faults and not held else Generated
        candidates = tuple(held[seed] for seed in request.seeds if seed in held)
        return kind(request.row_id, candidates, next(iter([*told, *faults]), None))


def _lent(request: Request) -> Request:
    """A request whose pictures may be changed in place: other rows and later rounds have them too."""
    examples = tuple(
        one if one.image is None else replace(one, image=lent(one.image))
        for one in request.examples
    )
    if isinstance(request, ImageRequest):
        return replace(request, examples=examples)
    return replace(request, image=lent(request.image), examples=examples)


class _Wrong(Generated):
    """An answer of which nothing can be used, by the generator's fault."""


def _of_no_row(error: Exception) -> bool:
    """Whether an error comes of the machine, the network, a server or the settings."""
    if comes_of_a_picture(error):
        return False
    ours = (OSError, ServiceRefused, ConfigError)
    return isinstance(error, ours) or may_pass(error) or is_lost(error)


def _named(ids: Sequence[Any]) -> str:
    shown = ", ".join(repr(one) for one in ids[:3])
    return f"{len(ids)} rows ({shown}{', …' if len(ids) > 3 else ''})" if ids else "no row"
