"""What is known of a completed row without the truth, by which its confidence is told."""

from __future__ import annotations

import math

import numpy as np

from pipeline.completion.confidence import EVIDENCE
from pipeline.completion.row import Row


def evidence_of(row: Row) -> np.ndarray:
    """The evidence of a row with a chosen candidate, float64 [`EVIDENCE`]; NaN where it isn't known.

    `score` and `cosine` (to the pseudo-embedding) are the candidate's, `margin` is by how much its score
    is above the next one of its round, `agreement` its mean cosine to the row's other candidates,
    `hubness` that of a text to the pictures that it suits best, and `example` the score of the best
    retrieved pair.
    """
    assert row.best is not None
    attempt, judgement = row.best.attempt, row.best.judgement
    rivals = [
        tried.judgement.score
        for number, tried in enumerate(row.tried)
        if number != row.chosen and tried.attempt == attempt and tried.judgement.score is not None
    ]
    score = _known(judgement.score)
    found = {
        "score": score,
        "cosine": _known(judgement.cosine),
        "margin": score - max(rivals) if rivals else math.nan,
        "agreement": _known(judgement.agreement),
        "hubness": _known(judgement.hubness),
        "example": row.examples[0].hit.score if row.examples else math.nan,
    }
    return np.array([found[name] for name in EVIDENCE])


def _known(value: float | None) -> float:
    return math.nan if value is None else value
