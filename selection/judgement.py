"""What was found of a row's candidates, and which of them is the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selection.settings import Scoring

# The embedding of nothing is a number, but says nothing.
_UNMEASURED = ("empty", "nan")
# A candidate that repeats one before it: sound, but no other choice.
DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Judgement:
    """What was found of one candidate; figures that were not taken are None.

    Attributes
    ----------
    agreement : float, optional
        Mean cosine to the row's other candidates.
    hubness : float, optional
        Mean cosine of a caption to the pseudo-embeddings of pictures that it is nearest to.
    """

    valid: bool
    reason: str | None = None
    cosine: float | None = None
    bleu: float | None = None
    niqe: float | None = None
    score: float | None = None
    agreement: float | None = None
    hubness: float | None = None


# Of a candidate that nothing was found of yet.
UNJUDGED = Judgement(valid=False)


@dataclass(frozen=True)
class Judged:
    """The verdict on a row's candidates.

    Attributes
    ----------
    judgements : tuple of Judgement
        One per candidate, in order.
    chosen : int or None
        Number of the best candidate, the lower one on ties.
    reason : str or None
        Why none was chosen.
    notes : tuple of str
        Terms of the score that had to be left out, and why.
    """

    judgements: tuple[Judgement, ...]
    chosen: int | None
    reason: str | None = None
    notes: tuple[str, ...] = ()


def choose(
    settings: Scoring,
    faults: Sequence[str | None],
    cosines: np.ndarray | None,
    score: np.ndarray,
    notes: list[str],
    *,
    bleus: Sequence[float | None] | None = None,
    qualities: Sequence[float | None] | None = None,
    agreements: np.ndarray | None = None,
    hubness: np.ndarray | None = None,
) -> Judged:
    """Judge candidates by their scores: the best valid one, unless it is below a floor.

    Parameters
    ----------
    faults : sequence of n str or None
        Why a candidate is invalid.
    cosines : ndarray of shape [n] or None
    score : ndarray of shape [n]
    notes : list of str
        Terms of the score that were left out.
    bleus, qualities : sequence of n float or None
    agreements, hubness : ndarray of shape [n] or None
    """
    judgements = tuple(
        Judgement(
            valid=fault is None,
            reason=fault,
            cosine=None if cosines is None or fault in _UNMEASURED else float(cosines[number]),
            bleu=bleus[number] if bleus is not None else None,
            niqe=qualities[number] if qualities is not None else None,
            score=float(score[number]) if fault is None else None,
            agreement=None if agreements is None or fault else float(agreements[number]),
            hubness=None if hubness is None or fault else float(hubness[number]),
        )
        for number, fault in enumerate(faults)
    )
    valid = [number for number, fault in enumerate(faults) if fault is None]
    if not valid:
        reasons = ", ".join(sorted({fault for fault in faults if fault and fault != DUPLICATE}))
        why = f"all candidates invalid: {reasons}" if faults else "no candidates"
        return Judged(judgements, None, why, tuple(notes))
    passing = valid
    if settings.floor_cosine is not None and cosines is not None:
        floor = settings.floor_cosine
        passing = [number for number in passing if cosines[number] >= floor]
        if not passing:
            best = max(cosines[number] for number in valid)
            why = f"below floor: best cosine {best:.3f} < floor_cosine {floor:g}"
            return Judged(judgements, None, why, tuple(notes))
    chosen = max(passing, key=lambda number: (score[number], -number))
    if settings.floor_score is not None and score[chosen] < settings.floor_score:
        why = f"below floor: best score {score[chosen]:.3f} < floor_score {settings.floor_score:g}"
        return Judged(judgements, None, why, tuple(notes))
    return Judged(judgements, chosen, None, tuple(notes))
