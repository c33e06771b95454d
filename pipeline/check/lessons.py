"""What checked pairs teach of a half: weights of the score, when one more candidate pays, and a second look.

All that may be drawn is drawn of a checked pair, and scored by the fixed weights; what would have been chosen
by others, or of fewer, follows from that. What a pair is judged by was fitted on the four folds that it is
not in, weights first, then the rule on pairs as those weigh them, then who gets a second look
(`pipeline.check.looking`) by what they stopped at; rows are judged and drawn for by
what was fitted on all pairs. The folds are those of the calibration, which comes last and holds to them too.
Whether learned weights are used at all is told by all pairs together: that is no fit to any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kb.embeddings import Modality
from pipeline.check import looking, stopping, weighing
from pipeline.check.calibrating import FEWEST, FOLDS, folds
from pipeline.check.candidates import Candidates, Choice
from pipeline.check.intervals import interval, paired
from pipeline.check.looking import Looked, looked
from pipeline.check.stopping import Gains
from pipeline.check.weighing import Weights
from pipeline.completion.confidence import Calibration
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
    looking : Calibration or None
        Fitted on all pairs after a first look, for rows; None where they are too few or none is to get a
        second one.
    whole, choices : list of Choice
        What each pair would have by these, and by what was fitted without its fold.
    without : list of list of Choice
        By what was fitted without each fold.
    told : dict
        `weights` (`pipeline.check.weighing.Weighing`), `draws` and `second_look`
        (`pipeline.check.looking.told`), each None where nothing is to be learned.
        `draws` are `least`, `most` and `min_improvement` as they were set; `rows` that the rule was fitted
        on, None without one; `mean`, how many candidates a pair has, and `saved`, the share of `most` that
        it has not; `loss`, by how much its half is less like the truth than the best of all, with `half`
        of its interval; `curve`, the similarity after each round with `half` of its interval.
    """

    weights: Weights | None
    stopping: Stopping | None
    looking: Calibration | None
    whole: list[Choice]
    choices: list[Choice]
    without: list[list[Choice]]
    told: dict[str, Any]


@dataclass(frozen=True)
class _Fit:
    """Pairs by weights, and what they would have by a rule that was fitted on some of them, at first and after
    second looks."""

    pairs: list[Candidates]
    rule: Stopping | None
    first: list[Choice]
    then: Looked


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
    look = generation.second_look if config.drawn_again(half) else None
    if len(rows) < 2 or (price is None and look is None and not scoring.automatic):
        return None
    pairs = [Candidates(row, scoring, standards) for row in rows]
    seconds = [
        Candidates(row, scoring, standards, 1) if len(row["check"]["looks"]) > 1 else None
        for row in rows
    ]
    middle = np.array([row["check"]["middle"] for row in rows], np.float64)
    known = look if len(pairs) >= FEWEST else None
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
        first = [stopping.stopped(pair, rule, ends, price or 0.0) for pair in own]
        again = [None if one is None else one.weighed(weights) for one in seconds]
        return _Fit(own, rule, first, looked(first, again, middle, kept, known))

    weights = None if weighed is None else weighed.whole
    whole = fitted(np.ones(len(pairs), bool), weights, price is not None and len(pairs) >= FEWEST)
    parts = [
        # Too few for all are too few for some.
        fitted(fold != n, None if weighed is None else weighed.without[n], whole.rule is not None)
        for n in range(FOLDS)
    ]
    own = [parts[number] for number in fold]
    first = [part.first[place] for place, part in enumerate(own)]
    choices = [part.then.choices[place] for place, part in enumerate(own)]
    told: dict[str, Any] = {
        "weights": None if weighed is None else weighed.told,
        "draws": None,
        "second_look": None,
    }
    if look is not None:
        doubted = np.array([part.then.doubted[place] for place, part in enumerate(own)])
        rows_of = None if known is None else len(pairs)
        told["second_look"] = looking.told(
            look, config.drawn_again(half), rows_of, doubted, first, choices
        )
    if price is not None:
        seen = [part.pairs[place] for place, part in enumerate(own)]
        told["draws"] = {
            "least": generation.least,
            "most": generation.most,
            "min_improvement": price,
            "rows": None if whole.rule is None else whole.rule.rows,
            **_drawn(seen, first, ends),
        }
    return Lessons(
        weights,
        whole.rule,
        whole.then.looking,
        whole.then.choices,
        choices,
        [part.then.choices for part in parts],
        told,
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
