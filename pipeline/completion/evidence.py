"""What is known of a row's candidates without the truth, by which its confidence and further draws are told."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.completion.confidence import EVIDENCE
from pipeline.completion.row import Row, Tried
from pipeline.completion.stopping import state
from selection.judgement import DUPLICATE, Judgement


def evidence_of(row: Row, chosen: int) -> np.ndarray:
    """The evidence of one of a row's candidates, float64 [`EVIDENCE`]; NaN where it isn't known.

    Its rivals are those of its own look; `example` is of the first look whichever that is.
    """
    best = row.tried[chosen]
    rivals = [
        tried.judgement.score
        for number, tried in enumerate(row.tried)
        if number != chosen
        and (tried.attempt, tried.second_look) == (best.attempt, best.second_look)
        and tried.judgement.score is not None
    ]
    example = row.examples[0].hit.score if row.examples else math.nan
    return evidence(best.judgement, rivals, example)


def evidence(chosen: Judgement, rivals: Sequence[float], example: float) -> np.ndarray:
    """The evidence of a chosen candidate, float64 [`EVIDENCE`]; NaN where it isn't known.

    `score` and `cosine` (to the pseudo-embedding) are the candidate's, `margin` is by how much its score
    is above the next one of its look, `agreement` its mean cosine to the row's other candidates,
    `hubness` that of a text to the pictures that it suits best, and `example` the score of the best
    retrieved pair.
    """
    score = _known(chosen.score)
    found = {
        "score": score,
        "cosine": _known(chosen.cosine),
        "margin": score - max(rivals) if rivals else math.nan,
        "agreement": _known(chosen.agreement),
        "hubness": _known(chosen.hubness),
        "example": example,
    }
    return np.array([found[name] for name in EVIDENCE])


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def state_of(tried: Sequence[Tried]) -> np.ndarray:
    """What the candidates of a look, of which one at least is sound, are like (`state`)."""
    judgements, alike = [one.judgement for one in tried], likeness(tried)
    places = originals(judgements, alike)
    sound = [number for number, place in enumerate(places) if place is not None]
    scores = [judgements[place].score for place in places if place is not None]
    return state(np.array(scores, np.float64), alike[np.ix_(sound, sound)], len(tried))


def likeness(tried: Sequence[Tried]) -> np.ndarray:
    """Cosine of each candidate to each, [n, n]; 0 where one has no embedding."""
    if not tried:
        return np.zeros((0, 0), np.float32)
    embeddings = np.stack([one.embedding for one in tried])
    return np.asarray(embeddings @ embeddings.T)


def originals(judgements: Sequence[Judgement], likeness: np.ndarray) -> list[int | None]:
    """Of each candidate the number of the valid one that it is or repeats; None of one that is unsound."""
    valid = [number for number, one in enumerate(judgements) if one.valid]

    def original(number: int) -> int | None:
        if judgements[number].valid:
            return number
        if judgements[number].reason != DUPLICATE or not valid:
            return None
        return max(valid, key=lambda other: (likeness[number, other], -other))

    return [original(number) for number in range(len(judgements))]
