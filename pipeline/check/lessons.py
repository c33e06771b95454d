"""What checked pairs teach of a half: weights of the score, and when one more candidate pays.

All that may be drawn is drawn of a checked pair, and scored by the fixed weights; what would have been chosen
by others, or of fewer, follows from that. What a pair is judged by was fitted on the four folds that it is
not in, weights first and then the rule on pairs as those weigh them; rows are judged and drawn for by
what was fitted on all pairs. The folds are those of the calibration, which comes last and holds to them too.
Whether learned weights are used at all is told by all pairs together: that is no fit to any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kb.embeddings import Modality
from pipeline.check import stopping, weighing
from pipeline.check.calibrating import FEWEST, FOLDS, folds
from pipeline.check.candidates import Candidates, Choice
from pipeline.check.intervals import interval, paired
from pipeline.check.stopping import Gains
from pipeline.check.weighing import Weights
from pipeline.completion.stopping import Stopping
from pipeline.config.config import Config
from selection.scales import Standards


@dataclass(frozen=True)
class Lessons:
    """What was learned, and what it makes of the checked pairs.

    Attributes
    ----------
    weights : mapping or None
        Of the score, for rows; None: the fixed ones.
    stopping : Stopping or None
        Fitted on all pairs, for rows; None where they are too few, and all candidates are drawn.
    whole, choices : list of Choice
        What each pair would have by these, and by what was fitted without its fold.
    without : list of list of Choice
        By what was fitted without each fold.
    told : dict
        `weights` (`pipeline.check.weighing.Weighing`) and `draws`, each None where nothing is to be learned.
        `draws` are `least`, `most` and `min_improvement` as they were set; `rows` that the rule was fitted
        on, None without one; `mean`, how many candidates a pair has, and `saved`, the share of `most` that
        it has not; `loss`, by how much its half is less like the truth than the best of all, with `half`
        of its interval; `curve`, the similarity after each round with `half` of its interval.
    """

    weights: Weights | None
    stopping: Stopping | None
    whole: list[Choice]
    choices: list[Choice]
    without: list[list[Choice]]
    told: dict[str, Any]


@dataclass(frozen=True)
class _Fit:
    """Pairs by weights, and what they would have by a rule that was fitted on some of them."""

    pairs: list[Candidates]
    rule: Stopping | None
    choices: list[Choice]


def learn(
    rows: Sequence[Mapping[str, Any]], half: Modality, config: Config, standards: Standards
) -> Lessons | None:
    """Learn of checked pairs with a chosen candidate; None where nothing is to be learned.

    Parameters
    ----------
    rows : sequence of mapping
        As `pipeline.check.candidates.Candidates` takes them.
    half : {"text", "image"}
    config : Config
        The run's.
    standards : Standards
        By which pictures are scored.
    """
    generation, seed, scoring = config.generation, config.run.seed, config.scoring[half]
    price, ends = generation.min_improvement, generation.rounds
    if len(rows) < 2 or (price is None and not scoring.automatic):
        return None
    pairs = [Candidates(row, scoring, standards) for row in rows]
    fold = folds(len(pairs), seed)
    weighed = weighing.weigh(pairs, fold)

    def gains_of(own: Sequence[Candidates]) -> list[Gains]:
        return [Gains.of(pair, ends[0], seed) for pair in own]

    of_fixed = [] if price is None else gains_of(pairs)

    def fitted(kept: np.ndarray, weights: Weights | None, wanted: bool) -> _Fit:
        own = [pair.weighed(weights) for pair in pairs]
        rule = None
        if wanted:
            gains = of_fixed if weights is None else gains_of(own)
            rule = stopping.fit([gains[n] for n in np.flatnonzero(kept)])
        return _Fit(own, rule, [stopping.stopped(pair, rule, ends, price or 0.0) for pair in own])

    weights = None if weighed is None else weighed.whole
    whole = fitted(np.ones(len(pairs), bool), weights, price is not None and len(pairs) >= FEWEST)
    parts = [
        # Too few for all are too few for some.
        fitted(fold != n, None if weighed is None else weighed.without[n], whole.rule is not None)
        for n in range(FOLDS)
    ]
    own = [parts[number] for number in fold]
    choices = [part.choices[place] for place, part in enumerate(own)]
    told = {"weights": None if weighed is None else weighed.told, "draws": None}
    if price is not None:
        seen = [part.pairs[place] for place, part in enumerate(own)]
        told["draws"] = {
            "least": generation.least,
            "most": generation.most,
            "min_improvement": price,
            "rows": None if whole.rule is None else whole.rule.rows,
            **_drawn(seen, choices, ends),
        }
    return Lessons(
        weights, whole.rule, whole.choices, choices, [part.choices for part in parts], told
    )


def _drawn(
    pairs: Sequence[Candidates], choices: Sequence[Choice], ends: Sequence[int]
) -> dict[str, Any]:
    mean = float(np.mean([choice.drawn for choice in choices]))
    best = [pair.chosen.truth for pair in pairs]
    loss = paired(best, [choice.truth for choice in choices])
    return {
        "mean": mean,
        "saved": 1 - mean / ends[-1],
        "loss": {"mean": loss.mean, "half": loss.half},
        "curve": [_after(pairs, end) for end in ends],
    }


def _after(pairs: Sequence[Candidates], end: int) -> dict[str, Any]:
    """Similarity of what is chosen of the first few, of pairs that have a choice then."""
    held = [choice.truth for pair in pairs if (choice := pair.first(end)) is not None]
    if len(held) < 2:
        return {"drawn": end, "rows": len(held)}
    one = interval(held)
    return {"drawn": end, "rows": len(held), "mean": one.mean, "half": one.half}
