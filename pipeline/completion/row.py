"""An incomplete row on its way through the stages, from the dataset to its place in the output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from generators.base import Candidate
from kb.retrieval import Hit
from pipeline.knowledge.standing import Pair
from selection.judgement import Judgement


@dataclass(frozen=True)
class Grounds:
    """A retrieved pair as it grounds a row: which of its captions speaks for it, and how near it is."""

    pair: Pair
    caption: str
    hit: Hit


@dataclass(frozen=True)
class Tried:
    """A candidate with the round that it was drawn in, and what was found of it.

    `notes` hold for all candidates of its round, such as why a score is missing.
    """

    attempt: int
    candidate: Candidate
    judgement: Judgement
    notes: tuple[str, ...] = ()


@dataclass
class Row:
    """An incomplete row.

    Attributes
    ----------
    item : PIL.Image.Image or list of str
        The observed half.
    reason : str
        Why the other half is missing.
    first_attempt : int
        Number of this run's first round for the row; above 1 where it was rejected before.
    examples : list of Grounds
        What the generator may be shown, best first.
    dropped : list of (Grounds, str)
        Retrieved pairs that are not handed to the generator, and why.
    pseudo : numpy.ndarray or None
        Predicted embedding [d] of the missing half, where there is a prediction.
    tried : list of Tried
        In the order in which they were drawn.
    chosen : int or None
        Number of the best in `tried`.
    faults : list of str
        Why rounds without a valid candidate had none.
    error : str or None
        What failed; such a row goes no further.
    """

    id: str
    item: Any
    reason: str
    first_attempt: int
    examples: list[Grounds] = field(default_factory=list)
    dropped: list[tuple[Grounds, str]] = field(default_factory=list)
    pseudo: np.ndarray | None = None
    tried: list[Tried] = field(default_factory=list)
    chosen: int | None = None
    faults: list[str] = field(default_factory=list)
    error: str | None = None

    def shown(self, candidates: Iterable[Candidate]) -> list[Grounds]:
        """The examples that candidates were shown, in the order in which they stood there."""
        by_id = {example.pair.id: example for example in self.examples}
        return [by_id[one] for one in dict.fromkeys(i for c in candidates for i in c.shown)]

    @property
    def best(self) -> Tried | None:
        """What was chosen."""
        return None if self.chosen is None else self.tried[self.chosen]
