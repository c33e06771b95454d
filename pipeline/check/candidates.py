"""The candidates of a look at a checked pair: what was found of each, how like the truth it is, and how alike they are.

Which of the first few would have been chosen follows from them without drawing anew: a row drawn in rounds
is a prefix of the row drawn at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.completion.confidence import EVIDENCE
from pipeline.completion.evidence import evidence, originals
from pipeline.completion.stopping import state
from selection.judgement import Judgement
from selection.scales import Standards
from selection.settings import ImageScoring, Scoring

_FIELDS = ("valid", "reason", "cosine", "bleu", "niqe", "score", "agreement", "hubness")


@dataclass(frozen=True)
class Choice:
    """What would have been chosen of the first candidates of a pair.

    Attributes
    ----------
    drawn : int
        How many those are.
    place : int
        The chosen one's number among all of the pair's.
    truth : float
        Its cosine to the truth.
    evidence : float64 [`EVIDENCE`]
    """

    drawn: int
    place: int
    truth: float
    evidence: np.ndarray

    @property
    def score(self) -> float:
        """The chosen one's; NaN where it has none."""
        return float(self.evidence[EVIDENCE.index("score")])


class Candidates:
    """The candidates of a look of the attempt that gave a pair its half.

    Parameters
    ----------
    row : mapping
        A checked pair with a chosen candidate: `completion`, with its `candidates` and `chosen`, and
        `check` (`pipeline.check.portion.CHECK`).
    scoring : Scoring
        As it is set; they were scored by its fixed weights.
    standards : Standards
        By which pictures were scored.
    look : int
        0 for the first one, 1 for the second, which must have a choice.

    Attributes
    ----------
    scoring : Scoring
    truth : float64 [n]
        Cosine of each to the true half.
    valid, sound : bool [n]
        Sound are the valid ones, and those that repeat one.
    chosen : Choice
        What is chosen of all of them.
    """

    def __init__(
        self, row: Mapping[str, Any], scoring: Scoring, standards: Standards, look: int = 0
    ) -> None:
        held, check = row["completion"]["candidates"], row["check"]
        chosen = check["looks"][look]
        of = held[chosen["place"]]["attempt"], held[chosen["place"]]["second_look"]
        own = [n for n, one in enumerate(held) if (one["attempt"], one["second_look"]) == of]
        self._first = own[0]
        self.scoring = scoring
        self._standards = standards
        self._judgements = [Judgement(**{name: held[n][name] for name in _FIELDS}) for n in own]
        self._likeness = np.array(check["likeness"], np.float64)[np.ix_(own, own)]
        self.truth = np.array(check["candidates"], np.float64)[own]
        places = originals(self._judgements, self._likeness)
        self.sound = np.array([place is not None for place in places])
        self.valid = np.array([one.valid for one in self._judgements])
        self._originals = [n if place is None else place for n, place in enumerate(places)]
        self._terms = self._found_of_each()
        fixed = self.weights()
        self._weight = fixed.get("agreement", 0.0)
        # What of a score depends on no other candidate.
        self._alone = self._of_each("score") - self._weight * self._of_each("agreement")
        known = np.array(chosen["evidence"], np.float64)
        self._example = float(known[EVIDENCE.index("example")])
        self.chosen = Choice(len(own), chosen["place"], chosen["chosen"], known)

    def _of_each(self, name: str) -> np.ndarray:
        """A figure of each candidate, that of the first where it repeats one; NaN where it has none."""
        values = [getattr(self._judgements[place], name) for place in self._originals]
        return np.array(values, np.float64)

    def _found_of_each(self) -> dict[str, np.ndarray]:
        """Terms of the score, [n] each, by what weighs them: each 0 where it was left out."""
        cosine, unit = self._of_each("cosine"), self.scoring.lambda1
        if isinstance(self.scoring, ImageScoring):
            scales, raw = self._standards, not self.scoring.standardise
            quality = self._of_each("niqe")
            # Where the selector leaves it out, so does this.
            there = np.isfinite(quality[self.valid]).all() and (raw or scales.niqe is not None)
            scaled = quality if raw or scales.niqe is None else scales.niqe(quality)
            quality = -scaled if there else np.zeros(len(cosine))
            cosine = cosine if raw or scales.cosine is None else scales.cosine(cosine)
            return {"lambda1": unit * np.nan_to_num(cosine), "lambda2": np.nan_to_num(quality)}
        found = {
            "lambda1": unit * cosine,
            "lambda2": self._of_each("bleu"),
            "hubness": -unit * self._of_each("hubness"),
            "agreement": self._of_each("agreement"),
        }
        return {name: np.nan_to_num(values) for name, values in found.items()}

    def weights(self, learned: Mapping[str, float] | None = None) -> dict[str, float]:
        """All weights by name: fixed ones, but for those that were learned."""
        fixed = self.scoring.fixed(learned)
        return {name: fixed.weight(name) for name in self.scoring.weights}

    def scored(self, learned: Mapping[str, float]) -> np.ndarray:
        """Scores of all candidates by other weights, [n]."""
        weights = {"lambda1": 1.0} | self.weights(learned)
        return np.sum([weights[name] * values for name, values in self._terms.items()], axis=0)

    def weighed(self, learned: Mapping[str, float] | None) -> Candidates:
        """The same, scored by other weights; as they were by None."""
        if learned is None:
            return self
        other = copy(self)
        other._weight = self.weights(learned).get("agreement", 0.0)
        agreement = self._terms.get("agreement", np.zeros(len(self)))
        other._alone = self.scored(learned) - other._weight * agreement
        other.chosen = other._of_first(len(self)) or self.chosen
        return other

    def __len__(self) -> int:
        return len(self.truth)

    def scores(self, numbers: np.ndarray) -> np.ndarray:
        """Scores of some sound candidates [v] as if there were no others."""
        if not self._weight:
            return self._alone[numbers]
        return self._alone[numbers] + self._weight * self._agreement(numbers)

    def _agreement(self, numbers: np.ndarray) -> np.ndarray:
        if len(numbers) < 2:
            return np.zeros(len(numbers))
        among = self._likeness[np.ix_(numbers, numbers)]
        found: np.ndarray = (among.sum(axis=1) - np.diag(among)) / (len(numbers) - 1)
        return found

    def state(self, numbers: np.ndarray, drawn: int) -> np.ndarray:
        """What some sound candidates [v] are like (`pipeline.completion.stopping.state`)."""
        return state(self.scores(numbers), self._likeness[np.ix_(numbers, numbers)], drawn)

    def first(self, count: int) -> Choice | None:
        """What would have been chosen of so many; None where there is none, or it is below a floor."""
        return self.chosen if count >= len(self) else self._of_first(count)

    def _of_first(self, count: int) -> Choice | None:
        numbers = np.flatnonzero(self.sound[:count])
        valid = self.valid[numbers]
        scores, settings = self.scores(numbers), self.scoring
        passing = valid.copy()
        if settings.floor_cosine is not None:
            cosines = np.array([self._judgements[n].cosine for n in numbers], np.float64)
            passing &= ~(cosines < settings.floor_cosine)
        if not passing.any():
            return None
        best = int(np.argmax(np.where(passing, scores, -np.inf)))
        if settings.floor_score is not None and scores[best] < settings.floor_score:
            return None
        place = int(numbers[best])
        chosen = replace(
            self._judgements[place],
            score=float(scores[best]),
            agreement=float(self._agreement(numbers)[best]),
        )
        others = valid & (np.arange(len(numbers)) != best)
        found = evidence(chosen, scores[others].tolist(), self._example)
        return Choice(count, self._first + place, float(self.truth[place]), found)
