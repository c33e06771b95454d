"""When one more candidate pays: fitted on the check's pairs, whose candidates' likeness to the truth is known.

Of each pair, in a few orders of its candidates, what was drawn after so many is compared with what one
more of the others would have made of it, in the mean over all that could come. Isotonic regression of that
gain on the expected improvement of the score is the rule of `pipeline.completion.stopping`; how far a
row's spread is drawn to that of others is chosen by the least squared error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.check.candidates import Candidates, Choice
from pipeline.completion.confidence import Steps
from pipeline.completion.stopping import Draws, Stopping

# Orders in which the candidates of a pair are looked at; the first is that in which they were drawn.
ORDERS = 4
# Draws that the spread of other rows may count as.
PRIORS = (0.01, 0.05, 0.2, 1.0, 4.0, 16.0)


@dataclass(frozen=True)
class Gains:
    """What one more candidate would have gained of a pair, after some were drawn.

    Attributes
    ----------
    draws : list of Draws
    gains : list of float
        In cosine to the truth, after each of `draws`.
    squares : float
        Squared distances of the scores of all candidates from their mean, summed.
    freedom : int
        How many of them are free.
    """

    draws: list[Draws]
    gains: list[float]
    squares: float
    freedom: int

    @classmethod
    def of(cls, pair: Candidates, least: int, seed: int) -> Gains:
        """Of a pair of which so many are drawn at once; the seed is that of the orders."""
        generator = np.random.default_rng(seed)
        orders = [np.arange(len(pair))]
        orders += [generator.permutation(len(pair)) for _ in range(ORDERS - 1)]
        found = [
            (Draws.of(scores, drawn), gain)
            for order in orders
            for drawn in range(least, len(pair))
            for scores, gain in [_gain(pair, order, drawn)]
            if len(scores)
        ]
        scores = pair.scores(np.flatnonzero(pair.sound))
        every = Draws.of(scores, len(pair))
        return cls(
            [one for one, _ in found], [one for _, one in found], every.squares, len(scores) - 1
        )


def fit(pairs: Sequence[Gains]) -> Stopping | None:
    """Fit the rule on these pairs; None where nothing is known of what one more candidate gains."""
    from sklearn.isotonic import IsotonicRegression

    draws = [one for pair in pairs for one in pair.draws]
    gains = np.array([one for pair in pairs for one in pair.gains])
    if not draws:
        return None
    freedom = sum(pair.freedom for pair in pairs)
    deviation = float(np.sqrt(sum(pair.squares for pair in pairs) / max(1, freedom)))
    best, rule = np.inf, None
    for prior in PRIORS:
        expected = np.array([one.improvement(deviation, prior) for one in draws])
        fitted = IsotonicRegression(out_of_bounds="clip").fit(expected, gains)
        error = float(np.square(gains - fitted.predict(expected)).sum())
        if error < best:
            steps = Steps(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist())
            best, rule = error, Stopping(deviation, prior, steps, len(pairs))
    return rule


def _gain(pair: Candidates, order: np.ndarray, drawn: int) -> tuple[np.ndarray, float]:
    """Scores of the sound ones of so many, and what one more of the others adds to the likeness to the truth."""
    before = order[:drawn][pair.sound[order[:drawn]]]
    scores = pair.scores(before)
    if not len(before):
        return scores, 0.0
    now = pair.truth[before[np.argmax(scores)]]
    total = 0.0
    others = order[drawn:]
    for other in others[pair.sound[others]]:
        together = np.append(before, other)
        total += pair.truth[together[np.argmax(pair.scores(together))]] - now
    return scores, total / len(others)


def stopped(
    pair: Candidates, stopping: Stopping | None, rounds: Sequence[int], price: float
) -> Choice:
    """What a row with a pair's candidates would have, by a rule and a price; without a rule all are drawn."""
    if stopping is None:
        return pair.chosen
    for drawn in rounds[:-1]:
        choice = pair.first(drawn)
        scores = pair.scores(np.flatnonzero(pair.sound[:drawn]))
        if choice is not None and stopping.of(scores, drawn) < price:
            return choice
    return pair.chosen
