"""When one more candidate pays: fitted on the check's pairs, whose candidates' likeness to the truth is known.

Of each pair, in a few orders of its candidates, what was drawn after so many is compared with what one
more of the others would have made of it, in the mean over all that could come. Ridge regression of that
gain on what the candidates were like gives an index, and isotonic regression on it the rule of
`pipeline.completion.stopping`. (The expected improvement of the score by its own spread, as in Bayesian
optimisation, told less of the gain than the mere number of draws: tests/benchmarks/check.md.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.check.candidates import Candidates, Choice
from pipeline.completion.confidence import Steps
from pipeline.completion.stopping import STATE, Stopping

# Orders in which the candidates of a pair are looked at; the first is that in which they were drawn.
ORDERS = 4
# Of the ridge, on standardised states: as if so many of them had said that nothing matters.
RIDGE = 100.0


@dataclass(frozen=True)
class Gains:
    """What one more candidate would have gained of a pair, after some were drawn.

    Attributes
    ----------
    states : float64 [g, `STATE`]
    gains : float64 [g]
        In cosine to the truth.
    """

    states: np.ndarray
    gains: np.ndarray

    @classmethod
    def of(cls, pair: Candidates, least: int, seed: int) -> Gains:
        """Of a pair of which so many are drawn at once; the seed is that of the orders."""
        generator = np.random.default_rng(seed)
        orders = [np.arange(len(pair))]
        orders += [generator.permutation(len(pair)) for _ in range(ORDERS - 1)]
        found = [
            (pair.state(before, drawn), _gain(pair, before, order[drawn:]))
            for order in orders
            for drawn in range(least, len(pair))
            if len(before := order[:drawn][pair.sound[order[:drawn]]])
        ]
        states = np.array([one for one, _ in found]).reshape(-1, len(STATE))
        return cls(states, np.array([one for _, one in found], np.float64))


def _gain(pair: Candidates, before: np.ndarray, others: np.ndarray) -> float:
    """What one more of the others adds to the likeness to the truth, in the mean over them."""
    now = pair.truth[before[np.argmax(pair.scores(before))]]
    total = 0.0
    for other in others[pair.sound[others]]:
        together = np.append(before, other)
        total += pair.truth[together[np.argmax(pair.scores(together))]] - now
    return float(total / len(others))


def fit(pairs: Sequence[Gains]) -> Stopping | None:
    """Fit the rule on these pairs; None where nothing is known of what one more candidate gains."""
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import Ridge

    states = np.concatenate([pair.states for pair in pairs])
    gains = np.concatenate([pair.gains for pair in pairs])
    if not len(gains):
        return None
    means, deviations = states.mean(axis=0), states.std(axis=0)
    deviations = np.where(deviations > 1e-9, deviations, 1.0)
    standard = (states - means) / deviations
    weights = Ridge(alpha=RIDGE).fit(standard, gains).coef_
    fitted = IsotonicRegression(out_of_bounds="clip").fit(standard @ weights, gains)
    steps = Steps(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist())
    return Stopping(means.tolist(), deviations.tolist(), weights.tolist(), steps, len(pairs))


def stopped(
    pair: Candidates, stopping: Stopping | None, rounds: Sequence[int], price: float
) -> Choice:
    """What a row with a pair's candidates would have, by a rule and a price; without a rule all are drawn."""
    if stopping is None:
        return pair.chosen
    for drawn in rounds[:-1]:
        choice = pair.first(drawn)
        if choice is None:
            continue
        if stopping.of(pair.state(np.flatnonzero(pair.sound[:drawn]), drawn)) < price:
            return choice
    return pair.chosen
