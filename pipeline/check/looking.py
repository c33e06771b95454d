"""What a second look makes of checked pairs, and by which confidence rows get one.

Every checked pair is looked at twice, and what it would have by its first look alone is known. Of whom little
is expected after that is told by a calibration (`pipeline.check.calibrating`) of the choices of the first
look; the one that tells of what rows have in the end comes after it, and both hold to the same folds.

The second look of a pair was shown pairs that were retrieved by the best of all candidates of the first, by the
fixed weights; that of a row by the best of those that were drawn for it, by the weights that are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.check.calibrating import Checked, fit
from pipeline.check.candidates import Candidates, Choice
from pipeline.check.intervals import interval, paired
from pipeline.completion.confidence import Calibration
from pipeline.config.generation import SecondLook


@dataclass(frozen=True)
class Looked:
    """Pairs after the second look of those of whom little was expected.

    Attributes
    ----------
    looking : Calibration or None
        By which it was told of whom; None: of none.
    doubted : bool [n]
        Those.
    choices : list of Choice
        What each pair has.
    """

    looking: Calibration | None
    doubted: np.ndarray
    choices: list[Choice]


def looked(
    first: Sequence[Choice],
    seconds: Sequence[Candidates | None],
    middle: np.ndarray,
    kept: np.ndarray,
    look: SecondLook | None,
) -> Looked:
    """Look again at pairs, by a calibration that was fitted on some of them.

    Parameters
    ----------
    first : sequence of Choice
        What each has by its first look.
    seconds : sequence of Candidates or None
        Those of its second one; None where that gave nothing.
    middle : float64 [n]
        As of `Checked`.
    kept : bool [n]
        The pairs to fit on.
    look : SecondLook or None
        None: no pair is looked at again.
    """
    none = np.zeros(len(first), bool)
    if look is None:
        return Looked(None, none, list(first))
    evidence = np.array([choice.evidence for choice in first], np.float64)
    truth = np.array([choice.truth for choice in first], np.float64)
    looking = fit(Checked(evidence, truth, middle).part(kept))
    doubted = looking.expected(looking.index(evidence)) < look.below
    choices = [
        better(choice, second.chosen) if doubts and second is not None else choice
        for choice, second, doubts in zip(first, seconds, doubted, strict=True)
    ]
    return Looked(looking, doubted, choices)


def better(first: Choice, second: Choice) -> Choice:
    """The one that scores higher; the first where they are level."""
    scores = (-math.inf if math.isnan(one.score) else one.score for one in (first, second))
    return max(zip(scores, (first, second), strict=True), key=lambda one: one[0])[1]


def told(
    look: SecondLook,
    drawn: int,
    rows: int | None,
    doubted: np.ndarray,
    before: Sequence[Choice],
    after: Sequence[Choice],
) -> dict[str, Any]:
    """What second looks made of pairs, each told by what was fitted without its fold.

    Returns
    -------
    dict
        `below` and `examples` as they were set; `drawn`, the candidates of a second look; `rows` that the
        calibration was fitted on, None without one; `looked`, how many pairs had one, and `share`, of
        all; `taken`, how many of them have their half of it; of two or more of them the similarity to the
        truth `before` and `after`, and the `gain`, as `mean` and `half` of the interval; `pays`, whether
        that is beyond the interval.
    """
    places = np.flatnonzero(doubted).tolist()
    own = [(before[place].truth, after[place].truth) for place in places]
    found: dict[str, Any] = {
        "below": look.below,
        "examples": look.examples,
        "drawn": drawn,
        "rows": rows,
        "looked": len(places),
        "share": len(places) / len(before),
        "taken": sum(before[place].place != after[place].place for place in places),
        "pays": False,
    }
    if len(own) < 2:
        return found
    first, then = (np.array(values, np.float64) for values in zip(*own, strict=True))
    gain = paired(then, first)
    figures = {"before": interval(first), "after": interval(then), "gain": gain}
    told = {name: {"mean": one.mean, "half": one.half} for name, one in figures.items()}
    return found | told | {"pays": bool(gain.low > 0)}
