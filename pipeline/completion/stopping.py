"""When one more candidate is worth drawing: by a row's own scores, and by what such gains came to in the check.

The expected improvement of one more draw over the best score so far (Mockus 1975; Jones et al. 1998) is told
by the row's own scores, taken as normal, with a variance that is drawn towards that of other rows: the less,
the more rows differ in it. What it comes to in likeness to the truth, a monotone step function of it, was fitted on the
check's pairs (`pipeline.check.stopping`). Draws of a row are alike in distribution, so that the expected gain
falls with their number, and the first that is not worth it ends them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from pipeline.completion.confidence import Steps


@dataclass(frozen=True)
class Stopping:
    """Tells the expected gain of one more candidate.

    Attributes
    ----------
    deviation : float
        Of the scores of a row's candidates, in other rows.
    prior : float
        That deviation counts as so many draws of the row's own.
    gain : Steps
        What an expected improvement of the score comes to in cosine to the truth.
    rows : int
        Pairs of the check that it was fitted on.
    """

    deviation: float
    prior: float
    gain: Steps
    rows: int

    def of(self, scores: np.ndarray, drawn: int) -> float:
        """The expected gain, in cosine to the truth, of one more candidate; see `Draws.of`."""
        expected = Draws.of(scores, drawn).improvement(self.deviation, self.prior)
        return float(self.gain(np.array([expected]))[0])

    def dump(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        return cls(**(dict(values) | {"gain": Steps(**values["gain"])}))


@dataclass(frozen=True)
class Draws:
    """The scores of a row's candidates so far.

    Attributes
    ----------
    drawn : int
        Candidates.
    count : int
        Of them those that are sound, at least one.
    mean, best : float
        Of the scores of these.
    squares : float
        The sum of their squared distances from the mean.
    """

    drawn: int
    count: int
    mean: float
    best: float
    squares: float

    @classmethod
    def of(cls, scores: np.ndarray, drawn: int) -> Self:
        """Of the sound candidates' scores [v], and how many candidates that took.

        Repeated ones count as often as they were drawn: another draw may well be the same.
        """
        mean = float(scores.mean())
        squares = float(np.square(scores - mean).sum())
        return cls(drawn, len(scores), mean, float(scores.max()), squares)

    def improvement(self, deviation: float, prior: float) -> float:
        """The expected improvement of the best score by one more draw.

        Parameters
        ----------
        deviation : float
            Of scores within other rows, which counts as `prior` draws.
        prior : float, above 0

        Notes
        -----
        With μ the mean and b the best of the scores, σ their deviation and z = (μ − b) / σ it is
        σ (φ(z) + z Φ(z)), times the share of draws that are sound.

        Examples
        --------
        >>> round(Draws.of(np.array([0.5]), 1).improvement(0.1, 4), 4)
        0.0399
        """
        squares = self.squares + prior * deviation**2
        spread = math.sqrt(squares / (self.count - 1 + prior))
        if spread < 1e-12:
            return 0.0
        z = (self.mean - self.best) / spread
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        below = (1 + math.erf(z / math.sqrt(2))) / 2
        return spread * (density + z * below) * self.count / self.drawn
