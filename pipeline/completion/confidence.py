"""What is expected of a generated half, by what the run's check found of others that were like it.

Expected is its cosine to the true half, by the run's encoder. Rows are told by what is known of them
without the truth, their evidence; a linear index of that, and two monotone steps on it, were fitted on the
check's pairs (`pipeline.check.calibrating`). Here they are applied, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

# What is known of a row without the truth; NaN where it isn't.
EVIDENCE = ("score", "cosine", "margin", "agreement", "hubness", "example")


@dataclass(frozen=True)
class Confidence:
    """What is expected of a generated half.

    Attributes
    ----------
    expected : float
        Its cosine to the true half.
    gain : float
        The probability that it is better than leaving the row out: that its cosine to the truth is
        above the median of those of random halves of the dataset's own pairs.
    """

    expected: float
    gain: float


@dataclass(frozen=True)
class Steps:
    """A monotone function: straight between its knots, and level beyond them.

    Attributes
    ----------
    at, values : sequence of float
        Knots, ascending, and the function's values there.
    """

    at: Sequence[float]
    values: Sequence[float]

    def __call__(self, index: np.ndarray) -> np.ndarray:
        return np.interp(index, self.at, self.values)


@dataclass(frozen=True)
class Calibration:
    """From evidence to confidence.

    Attributes
    ----------
    means, deviations, weights : sequence of float
        Of each of `EVIDENCE`: the index is their weighted sum, standardised; unknown ones count as
        the mean.
    expected, gain : Steps
        On the index; see `Confidence`.
    rows : int
        Pairs of the check that it was fitted on.
    """

    means: Sequence[float]
    deviations: Sequence[float]
    weights: Sequence[float]
    expected: Steps
    gain: Steps
    rows: int

    def index(self, evidence: np.ndarray) -> np.ndarray:
        """What the steps are on, [n], of evidence [n, `EVIDENCE`]."""
        standard = (evidence - np.asarray(self.means)) / np.asarray(self.deviations)
        return np.nan_to_num(standard) @ np.asarray(self.weights)

    def of(self, evidence: np.ndarray) -> list[Confidence]:
        """What is expected of rows, of evidence [n, `EVIDENCE`]."""
        index = self.index(evidence)
        pairs = zip(self.expected(index), self.gain(index), strict=True)
        return [Confidence(float(expected), float(gain)) for expected, gain in pairs]

    def dump(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        steps = {name: Steps(**values[name]) for name in ("expected", "gain")}
        return cls(**(dict(values) | steps))
