"""When one more candidate is worth drawing: by what a row's candidates are like so far, and what the check found.

A linear index of that, and a monotone step function on it, tell what one more gains in likeness to the
truth; both were fitted on the check's pairs (`pipeline.check.stopping`). Draws of a row are alike in
distribution, so that the gain falls with their number, and the first that is not worth it ends them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from pipeline.completion.confidence import Steps

# What is known of a row's candidates so far; see `state`.
STATE = ("best", "mean", "spread", "agreement", "cohesion", "repeats", "distinct", "sound", "few")
# Cosine from which a candidate says the same as another.
SAME = 0.98


@dataclass(frozen=True)
class Stopping:
    """Tells the expected gain of one more candidate.

    Attributes
    ----------
    means, deviations, weights : sequence of float
        Of each of `STATE`: the index is their weighted sum, standardised.
    gain : Steps
        On the index, in cosine to the truth.
    rows : int
        Pairs of the check that it was fitted on.
    """

    means: Sequence[float]
    deviations: Sequence[float]
    weights: Sequence[float]
    gain: Steps
    rows: int

    def index(self, states: np.ndarray) -> np.ndarray:
        """What the steps are on, [n], of states [n, `STATE`]."""
        standard = (states - np.asarray(self.means)) / np.asarray(self.deviations)
        found: np.ndarray = standard @ np.asarray(self.weights)
        return found

    def of(self, state: np.ndarray) -> float:
        """The expected gain, in cosine to the truth, of one more candidate."""
        return float(self.gain(self.index(state[None]))[0])

    def dump(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        return cls(**(dict(values) | {"gain": Steps(**values["gain"])}))


def state(scores: np.ndarray, likeness: np.ndarray, drawn: int) -> np.ndarray:
    """What a row's candidates are like so far, float64 [`STATE`].

    Parameters
    ----------
    scores : [v], v >= 1
        Of the sound candidates; repeated ones count as often as they were drawn, for another draw may
        well be the same.
    likeness : [v, v]
        Their cosines to one another.
    drawn : int
        How many candidates that took.

    Notes
    -----
    `best`, `mean` and `spread` are those of the scores, `agreement` the mean cosine of the best to the
    others, `cohesion` that of all, `repeats` the share that says what the best says, `distinct` the share of
    different scores, `sound` that of sound candidates, `few` one by how many were drawn.

    Examples
    --------
    >>> state(np.array([0.5, 0.3]), np.array([[1.0, 0.8], [0.8, 1.0]]), 4).round(3).tolist()
    [0.5, 0.4, 0.1, 0.8, 0.8, 0.5, 1.0, 0.5, 0.25]
    """
    count, best = len(scores), int(np.argmax(scores))
    others = max(1, count - 1)
    own = likeness - np.diag(np.diag(likeness))
    found = {
        "best": scores[best],
        "mean": scores.mean(),
        "spread": scores.std(),
        "agreement": own[best].sum() / others,
        "cohesion": own.sum() / (count * others),
        "repeats": (1 + (own[best] >= SAME).sum()) / count,
        "distinct": len(np.unique(scores.round(4))) / count,
        "sound": count / drawn,
        "few": 1 / drawn,
    }
    return np.array([found[name] for name in STATE], np.float64)
