"""How sure a generated half may be: fitted on the check's pairs, and judged by pairs that it was not fitted on.

Ridge regression of the cosine to the truth on the standardised evidence gives an index, and isotonic
regression of the same cosine, and of whether it is above that of the median random half, on that index
the two monotone steps of `pipeline.completion.confidence`. Five folds are predicted by fits of the four
others: these predictions make the curve and the errors, the fit of all pairs the confidence of rows. The
pairs are one of each group that shares a half, so that no fold knows of another.

With few pairs the steps of isotonic regression follow single ones; below `FEWEST` none is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.completion.confidence import Calibration, Steps

FEWEST = 50
FOLDS = 5
# Bins of the curve, and the fewest pairs of one: a mean of twenty is sure to about a fifth of their spread.
MOST_BINS = 10
BIN = 20
# Of the ridge, on standardised evidence: as if so many pairs had said that nothing matters.
RIDGE = 10.0


@dataclass(frozen=True)
class Checked:
    """Checked pairs with a generated half.

    Attributes
    ----------
    evidence : float64 [n, `EVIDENCE`]
        NaN where it isn't known.
    truth : float64 [n]
        Cosine to the true half.
    middle : float64 [n]
        The median of those of random halves.
    """

    evidence: np.ndarray
    truth: np.ndarray
    middle: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    def part(self, rows: np.ndarray) -> Checked:
        """Some of the pairs."""
        return Checked(self.evidence[rows], self.truth[rows], self.middle[rows])


def fit(checked: Checked) -> Calibration:
    """A calibration of all of these pairs."""
    from sklearn.linear_model import Ridge

    means, deviations = _moments(checked.evidence)
    standard = np.nan_to_num((checked.evidence - means) / deviations)
    weights = Ridge(alpha=RIDGE).fit(standard, checked.truth).coef_
    index = standard @ weights
    return Calibration(
        means.tolist(),
        deviations.tolist(),
        weights.tolist(),
        _steps(index, checked.truth),
        _steps(index, (checked.truth > checked.middle).astype(np.float64)),
        len(checked),
    )


def _moments(evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each, 0 and 1 where there are none to tell rows apart by."""
    known = np.isfinite(evidence)
    counts = known.sum(axis=0)
    filled = np.where(known, evidence, 0.0)
    means = filled.sum(axis=0) / counts.clip(1)
    squares = np.where(known, (evidence - means) ** 2, 0.0).sum(axis=0)
    deviations = np.sqrt(squares / counts.clip(1))
    return means, np.where(deviations > 1e-9, deviations, 1.0)


def _steps(index: np.ndarray, values: np.ndarray) -> Steps:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(index, values)
    return Steps(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist())


@dataclass(frozen=True)
class Calibrated:
    """A calibration, and how right it is of pairs that it was not fitted on.

    Attributes
    ----------
    calibration : Calibration
        Of all pairs.
    told : dict
        `rows`; `curve`, of each bin of equally many pairs in the order of what was expected of them
        `expected`, `found` and `rows`; `error`, the expected calibration error of the cosine: the mean
        distance of a bin's expected to its found one (Naeini et al. 2015, for a mean in place of a
        share); `chance`, what that would be in the mean if all that is expected were right, for as few
        pairs as a bin has; `gain_error`, the same of the probability of a gain; `order`, by how much the better
        half as expected is more like the truth than the other, `mean` and `half` of its 95 % interval.
    """

    calibration: Calibration
    told: dict[str, Any]


def folds(count: int, seed: int) -> np.ndarray:
    """The fold of each pair, int [n] of 0 to `FOLDS` - 1."""
    return np.random.default_rng(seed).permutation(count) % FOLDS


def calibrate(
    checked: Checked, seed: int, without: Sequence[Checked] | None = None
) -> Calibrated | None:
    """Fit a calibration, and judge it out of fold; None of fewer than `FEWEST` pairs.

    Parameters
    ----------
    checked : Checked
    seed : int
        Deals the folds.
    without : sequence of `FOLDS` Checked, optional
        The same pairs as they are where what chose their halves was fitted without a fold; left out where
        nothing that chose was fitted on any.
    """
    if len(checked) < FEWEST:
        return None
    expected, gain = np.empty(len(checked)), np.empty(len(checked))
    truth = checked.truth.copy()
    fold = folds(len(checked), seed)
    for number in range(FOLDS):
        held = fold == number
        seen = checked if without is None else without[number]
        fitted = fit(seen.part(~held))
        index = fitted.index(seen.evidence[held])
        expected[held], gain[held] = fitted.expected(index), fitted.gain(index)
        truth[held] = seen.truth[held]
    gains = (truth > checked.middle).astype(np.float64)
    curve = _curve(expected, truth)
    told = {
        "rows": len(checked),
        "curve": curve,
        "error": _error(curve, len(checked)),
        "chance": _chance(expected, truth),
        "gain_error": _error(_curve(gain, gains), len(checked)),
        "order": _order(expected, truth),
    }
    return Calibrated(fit(checked), told)


def _curve(expected: np.ndarray, found: np.ndarray) -> list[dict[str, Any]]:
    order = np.argsort(expected, kind="stable")
    return [
        {
            "expected": float(expected[rows].mean()),
            "found": float(found[rows].mean()),
            "rows": len(rows),
        }
        for rows in _bins(order)
    ]


def _bins(order: np.ndarray) -> list[np.ndarray]:
    """Rows in order, in equally many each."""
    return np.array_split(order, max(2, min(MOST_BINS, len(order) // BIN)))


def _chance(expected: np.ndarray, found: np.ndarray) -> float:
    """The mean distance of a bin's mean from what it is of many: sqrt(2 / π) of its standard error."""
    bins = _bins(np.argsort(expected, kind="stable"))
    errors = [(found[rows] - expected[rows]).std(ddof=1) / np.sqrt(len(rows)) for rows in bins]
    share = [len(rows) / len(found) for rows in bins]
    return float(np.sqrt(2 / np.pi) * np.dot(errors, share))


def _error(curve: list[dict[str, Any]], rows: int) -> float:
    return sum(abs(one["expected"] - one["found"]) * one["rows"] for one in curve) / rows


def _order(expected: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The better half's mean less the other's; the interval by Welch."""
    from scipy.stats import t

    worse, better = np.array_split(truth[np.argsort(expected, kind="stable")], 2)
    parts = [side.var(ddof=1) / len(side) for side in (worse, better)]
    spread = sum(parts)
    if spread == 0:
        return {"mean": float(better.mean() - worse.mean()), "half": 0.0}
    freedom = spread**2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, (worse, better), strict=True)
    )
    half = float(t.ppf(0.975, freedom) * np.sqrt(spread))
    return {"mean": float(better.mean() - worse.mean()), "half": half}
