"""An incomplete row on its way through the stages, from the dataset to its place in the output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from generators.base import Candidate
from generators.pictures import held
from kb.retrieval import Hit
from pipeline.completion.confidence import Confidence
from pipeline.dataset.images import decode
from pipeline.knowledge.standing import Pair
from selection.judgement import Judgement

# What was decoded once was within its limit.
ANY_SIZE = 1 << 62


@dataclass(frozen=True)
class Grounds:
    """A retrieved pair as it grounds a row: which of its captions speaks for it, and how near it is.

    `side` is the longest side that its picture is held at; None: its own.
    """

    pair: Pair
    caption: str
    hit: Hit
    side: int | None = None

    @property
    def picture(self) -> Image.Image | None:
        """The pair's picture, decoded again where it was let go."""
        if self.pair.image is None and self.pair.encoded is not None:
            return held(decode(self.pair.encoded, ANY_SIZE, self.side), self.side)
        return self.pair.image


@dataclass(frozen=True)
class Tried:
    """A candidate with the attempt that it was drawn in, and what was found of it.

    `notes` hold for all candidates of its attempt, such as why a score is missing. `embedding` is the
    candidate's, [d], of zeros where it has none. `fault` is what is known to be wrong with it, whatever
    its judge says. `second_look`: it was drawn in the second look of its attempt.
    """

    attempt: int
    candidate: Candidate
    judgement: Judgement
    embedding: np.ndarray
    notes: tuple[str, ...] = ()
    fault: str | None = None
    second_look: bool = False


@dataclass
class Row:
    """An incomplete row.

    Attributes
    ----------
    item : PIL.Image.Image or list of str
        The observed half; None for a picture that was let go, or can't be decoded.
    file : bytes or None
        What a picture was decoded from.
    side : int or None
        The longest side that a picture is held at; None: its own.
    least : int or None
        The shorter side that a JPEG is decoded at, at least; None: its own.
    reason : str
        Why the other half is missing.
    first_attempt : int
        Number of this run's first attempt for the row; above 1 where it was rejected before.
    turn : int
        Attempts of this run that are over.
    second_look : bool
        The attempt that is under way is in its second look.
    looks : list of int
        Numbers in `tried` of what each of its looks has chosen, of those that have a choice.
    drawn : int
        Candidates that were asked for in the attempt that is under way; where a second look begins, all
        that the first may have.
    lacking : list of str
        Why some of those did not come.
    settled : bool
        No more are asked for.
    examples : list of Grounds
        What the generator may be shown, best first.
    others : dict of int to list of Grounds
        What it may be shown in the second look of an attempt, by the attempt's number.
    dropped : list of (Grounds, str)
        Retrieved pairs that are not handed to the generator, and why.
    embedding : numpy.ndarray or None
        That of the observed half, [d], where it could be had.
    pseudo : numpy.ndarray or None
        Predicted embedding [d] of the missing half, where there is a prediction.
    tried : list of Tried
        In the order in which they were drawn.
    chosen : int or None
        Number of the best in `tried`, while the row is not settled that of those so far.
    confidence : Confidence or None
        What is expected of the chosen one, where that is known.
    faults : list of str
        Why attempts without a valid candidate had none.
    error : str or None
        What failed; such a row goes no further.
    """

    id: str
    item: Any
    reason: str
    first_attempt: int
    turn: int = 0
    second_look: bool = False
    looks: list[int] = field(default_factory=list)
    drawn: int = 0
    lacking: list[str] = field(default_factory=list)
    settled: bool = False
    file: bytes | None = None
    side: int | None = None
    least: int | None = None
    examples: list[Grounds] = field(default_factory=list)
    dropped: list[tuple[Grounds, str]] = field(default_factory=list)
    others: dict[int, list[Grounds]] = field(default_factory=dict)
    embedding: np.ndarray | None = None
    pseudo: np.ndarray | None = None
    tried: list[Tried] = field(default_factory=list)
    chosen: int | None = None
    confidence: Confidence | None = None
    faults: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def attempt(self) -> int:
        """Number of the attempt that is under way."""
        return self.first_attempt + self.turn

    @property
    def observed(self) -> Any:
        """The observed half; a picture is decoded again where it was let go."""
        return (
            held(decode(self.file, ANY_SIZE, self.least), self.side)
            if self.item is None and self.file is not None
            else self.item
        )

    def let_pictures_go(self) -> None:
        """Hold what pictures were decoded from, and no pixels."""
        if self.file is not None:
            self.item = None
        self.examples = _without_pictures(self.examples)
        self.others = {attempt: _without_pictures(own) for attempt, own in self.others.items()}

    @property
    def grounds(self) -> list[Grounds]:
        """What the generator may be shown next, best first."""
        return self.others[self.attempt] if self.second_look else self.examples

    @property
    def retrieved(self) -> list[Grounds]:
        """All that it may have been shown."""
        return [*self.examples, *(one for own in self.others.values() for one in own)]

    def shown(self, candidates: Iterable[Candidate]) -> list[Grounds]:
        """The examples that candidates were shown, in the order in which they stood there."""
        by_id = {example.pair.id: example for example in self.retrieved}
        return [by_id[one] for one in dict.fromkeys(i for c in candidates for i in c.shown)]

    def of_look(self) -> list[Tried]:
        """The candidates of the look that is under way, which stand last in `tried`."""
        under_way = self.attempt, self.second_look
        return [one for one in self.tried if (one.attempt, one.second_look) == under_way]

    def look_again(self, others: list[Grounds], drawn: int) -> None:
        """Begin the second look of the attempt, after so many candidates that the first may have."""
        # In one step: another thread may count what is held.
        self.others = {**self.others, self.attempt: others}
        self.second_look, self.drawn, self.lacking = True, drawn, []

    def note(self, what: str) -> None:
        """Say something of the chosen candidate, which must be there."""
        assert self.chosen is not None
        best = self.tried[self.chosen]
        self.tried[self.chosen] = replace(best, notes=(*best.notes, what))

    def try_again(self) -> None:
        """Begin the next attempt."""
        self.turn, self.drawn = self.turn + 1, 0
        self.second_look, self.looks, self.lacking = False, [], []

    @property
    def best(self) -> Tried | None:
        """What was chosen."""
        return None if self.chosen is None else self.tried[self.chosen]


def _without_pictures(examples: list[Grounds]) -> list[Grounds]:
    return [replace(one, pair=replace(one.pair, image=None)) for one in examples]
