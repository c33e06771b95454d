"""The weights of a half's score, learned from checked pairs: which of a pair's candidates is most like the truth.

Ridge regression of the cosine to the truth on the score's terms, both less their means within the pair, so
that pairs are compared with none but themselves; no weight below 0, so that each term counts the way that it
is meant to. The cosine's weight stays what it is, and the others are told beside it. Weights are used
where, out of fold, what they choose is more like the truth than what the fixed ones do, by more than
the interval of that gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.check.calibrating import FEWEST, FOLDS
from pipeline.check.candidates import Candidates
from pipeline.check.intervals import paired

# Of the ridge, on terms of unit deviation: as if so many candidates had said that nothing matters.
RIDGE = 10.0

Weights = Mapping[str, float]


@dataclass(frozen=True)
class Weighing:
    """Learned weights, and whether they are used.

    Attributes
    ----------
    whole : mapping or None
        By the name of the setting, fitted on all pairs; None where the fixed ones are used.
    without : list of mapping or None
        The same, fitted without each fold.
    told : dict
        `rows` that they were fitted on; `fixed` and `fitted` weights; `used`; `gain` of what is chosen over
        what the fixed ones choose, out of fold, as `mean` and `half` of its interval.
    """

    whole: Weights | None
    without: list[Weights | None]
    told: dict[str, Any]


def weigh(pairs: Sequence[Candidates], fold: np.ndarray) -> Weighing | None:
    """Learn the weights that are `auto`; None where there is none, or where pairs are fewer than `FEWEST`.

    Parameters
    ----------
    pairs : sequence of Candidates
        By the fixed weights.
    fold : int [n]
        Of each pair.
    """
    if len(pairs) < FEWEST or not pairs[0].scoring.automatic:
        return None
    parts = [
        fit([pairs[n] for n in np.flatnonzero(fold != number).tolist()]) for number in range(FOLDS)
    ]
    whole = fit(pairs)
    told: dict[str, Any] = {
        "rows": len(pairs),
        "fixed": {
            name: value
            for name, value in pairs[0].weights().items()
            if name in pairs[0].scoring.automatic
        },
        "fitted": whole,
        "used": False,
    }
    if whole is None or any(part is None for part in parts):
        return Weighing(None, [None] * FOLDS, told)
    chosen = [
        pair.weighed(parts[number]).chosen.truth for pair, number in zip(pairs, fold, strict=True)
    ]
    gain = paired(chosen, [pair.chosen.truth for pair in pairs])
    told |= {"gain": {"mean": gain.mean, "half": gain.half}, "used": bool(gain.low > 0)}
    if not told["used"]:
        return Weighing(None, [None] * FOLDS, told)
    return Weighing(whole, parts, told)


def fit(pairs: Sequence[Candidates]) -> Weights | None:
    """The weights that are `auto`, fitted on these pairs; None where the cosine itself says nothing."""
    from sklearn.linear_model import Ridge

    names = pairs[0].scoring.automatic
    parts = [_within(pair, names) for pair in pairs]
    terms = np.concatenate([own for own, _ in parts])
    truth = np.concatenate([own for _, own in parts])
    deviations = np.sqrt(np.square(terms).mean(axis=0)) if len(terms) else np.zeros(len(names) + 1)
    deviations = np.where(deviations > 1e-9, deviations, np.inf)
    fitted = Ridge(alpha=RIDGE, fit_intercept=False, positive=True).fit(terms / deviations, truth)
    unit, *others = fitted.coef_ / deviations
    if unit <= 0:
        return None
    return {name: float(value / unit) for name, value in zip(names, others, strict=True)}


def _within(pair: Candidates, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Terms [v, 1 + names] and truth [v] of a pair's valid candidates, less their means."""
    valid = np.flatnonzero(pair.valid)
    rest = pair.scored(dict.fromkeys(names, 0.0))[valid]
    one = [pair.scored(dict.fromkeys(names, 0.0) | {name: 1.0})[valid] - rest for name in names]
    terms = np.stack([rest, *one], axis=1)
    return terms - terms.mean(axis=0), pair.truth[valid] - pair.truth[valid].mean()
