"""The contest of mappings: what they predict out of fold, and how well it finds the true half.

Mean cosine would not do as a judge: predictions are only ever compared with each other, and one
near the mean has a high cosine to everything and tells nothing apart. (Example world, 50 pairs,
text to image: ridge has the higher cosine, and recall at 5 among 500 of 0.48 against 0.80 by the
mean shift.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kb.embeddings import MODALITIES, Modality, opposite
from kb.groups import deal
from kb.mapping.candidates import tier
from kb.mapping.regressors import Regressor
from kb.mapping.shared_mlp import blended

Figures = dict[str, float]
# Makes a regressor to be fitted, given those that were fitted to the same pairs before it.
Maker = Callable[[Mapping[str, Regressor]], Regressor]

# Pairs that are predicted out of fold at most, to judge by and for what is measured later: more
# would tell no more.
HELD_OUT_ROWS = 2000

# Per candidate, how like the truth the examples are that are found with its predictions, [r].
Judge = Callable[[Modality, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Contest:
    """What candidates predict of pairs that they did not see, and how right they are.

    Attributes
    ----------
    predictions : dict
        Per candidate and source modality unit rows [r, d of the other].
    scores : dict
        Per source modality and candidate its `figures`, with `example` once it was judged by that;
        for `mean`, the mean of the other modality; and for `chance` the reciprocal rank of a guess.
    """

    predictions: dict[str, dict[Modality, np.ndarray]]
    scores: dict[Modality, dict[str, Figures]]

    @classmethod
    def hold(
        cls,
        candidates: Mapping[str, Maker],
        pairs: Mapping[Modality, np.ndarray],
        groups: np.ndarray,
        held: np.ndarray,
        folds: int,
        random_state: int,
    ) -> Contest:
        """Cross-validates the candidates, named in the order of their freedom.

        Parameters are those of `out_of_fold`; `held` are the rows that they are compared by.
        """
        generator = np.random.default_rng(random_state)
        # A blend beside its parts needs no fit of its own.
        derived = {"start", "blend", "mlp"} <= set(candidates)
        predictions = out_of_fold(
            {n: make for n, make in candidates.items() if n != "blend" or not derived},
            pairs,
            groups,
            folds,
            generator,
            random_state,
            held,
        )
        if derived:
            start, network = predictions["start"], predictions["mlp"]
            predictions["blend"] = {m: blended(start[m], network[m]) for m in MODALITIES}
        order = generator.permutation(len(held))
        # One of each group: the others would be as right.
        pool = order[np.sort(np.unique(groups[held][order], return_index=True)[1])]
        scores: dict[Modality, dict[str, Figures]] = {}
        for source in MODALITIES:
            truth = pairs[opposite(source)][held]
            scores[source] = {
                name: figures(predictions[name][source], truth, pool)
                for name in (*candidates, "mean")
            }
            scores[source]["chance"] = {"reciprocal_rank": chance(len(pool))}
        return cls({name: predictions[name] for name in candidates}, scores)

    def best(self, source: Modality, quality: Mapping[str, np.ndarray] | None = None) -> str:
        """The candidate to map from `source` by: by its examples where they are known, else by rank.

        Parameters
        ----------
        quality : mapping, optional
            Per candidate the cosine of the retrieved example's half to the true one, [r].
        """
        scores, names = self.scores[source], list(self.predictions)
        if quality is None:
            return best(scores, names)
        for name in names:
            scores[name]["example"] = float(quality[name].mean())
        tiers = [[name for name in names if tier(name) == number] for number in range(3)]
        return best_by_examples(quality, scores, [tier for tier in tiers if tier])

    def says_nothing(self, source: Modality, name: str) -> bool:
        """Whether a candidate finds the true half no better than chance."""
        scores = self.scores[source]
        margin = scores[name]["reciprocal_rank"] - scores["chance"]["reciprocal_rank"]
        return margin <= 2 * scores[name]["standard_error"]


def out_of_fold(
    candidates: Mapping[str, Maker],
    pairs: Mapping[Modality, np.ndarray],
    groups: np.ndarray,
    folds: int,
    generator: np.random.Generator,
    random_state: int,
    wanted: np.ndarray,
) -> dict[str, dict[Modality, np.ndarray]]:
    """Predictions of some rows by candidates that were fitted without their folds.

    Parameters
    ----------
    candidates : mapping
        Name to a maker of a regressor, in the order in which they are fitted.
    pairs : per modality unit rows [n, d]
    groups : int64 [n]
        Rows of a group are held out together.
    folds : int
        Clamped to the number of groups.
    generator : Generator
        Deals the folds.
    random_state : int
        Seeds the fits.
    wanted : int64 [r]
        The rows to be predicted, ascending.

    Returns
    -------
    dict
        Per candidate, and for `mean` (the mean of the other modality), per source modality
        float32 [r, d of the other].
    """
    fold = deal(groups, folds, generator)
    predictions: dict[str, dict[Modality, np.ndarray]] = {
        name: {
            m: np.empty((len(wanted), pairs[opposite(m)].shape[1]), np.float32) for m in MODALITIES
        }
        for name in (*candidates, "mean")
    }
    for number in range(fold.max() + 1):
        held, used = fold[wanted] == number, fold != number
        seen = {m: pairs[m][used] for m in MODALITIES}
        fitted: dict[str, Regressor] = {}
        for name, make in candidates.items():
            model = make(fitted).fit(seen, random_state + number, groups[used])
            fitted[name] = model
            for source in MODALITIES:
                predictions[name][source][held] = model.predict(pairs[source][wanted[held]], source)
        for source in MODALITIES:
            mean = seen[opposite(source)].mean(axis=0, keepdims=True)
            predictions["mean"][source][held] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return predictions


def figures(predicted: np.ndarray, truth: np.ndarray, pool: np.ndarray) -> Figures:
    """How well predictions find their true half among those of a pool.

    Parameters
    ----------
    predicted, truth : unit rows [n, d]
    pool : int64 [p]
        Rows that are looked for and among.

    Returns
    -------
    dict
        Mean logarithm of the rank, mean reciprocal rank with its standard error, recall at 5 and
        at 10, and the mean cosine over all rows.
    """
    found = ranks(predicted[pool], truth[pool])
    return {
        "log_rank": float(np.log(found).mean()),
        "reciprocal_rank": float((1 / found).mean()),
        "standard_error": float((1 / found).std(ddof=1) / np.sqrt(len(pool))),
        "recall_at_5": float((found <= 5).mean()),
        "recall_at_10": float((found <= 10).mean()),
        "cosine": float(np.einsum("nd,nd->n", predicted, truth).mean()),
    }


def best(scores: Mapping[str, Figures], names: Sequence[str]) -> str:
    """The name of the lowest mean logarithm of the rank; else the first.

    Recall at one depth counts a few rows near that depth, and over two hundred pairs chance
    decides; the logarithm hears every row, and the far ones no louder than they matter.

    The candidates are named in the order of their freedom, so that a tie goes to the simpler.
    """
    return min(names, key=lambda name: scores[name]["log_rank"])


def best_by_examples(
    quality: Mapping[str, np.ndarray], scores: Mapping[str, Figures], tiers: Sequence[Sequence[str]]
) -> str:
    """The name whose retrieved examples are most like the truth; what is level goes by rank.

    Parameters
    ----------
    quality : mapping
        Per candidate the cosine of the example's half to the true one, [n] by row.
    scores : mapping
        As for `best`.
    tiers : sequence of sequences of str
        The best of a tier is taken only if it gains more than its standard error over what was
        taken of those before.
    """

    def first(names: Sequence[str]) -> str:
        return max(
            names, key=lambda name: (round(quality[name].mean(), 6), -scores[name]["log_rank"])
        )

    taken = first(tiers[0])
    for names in tiers[1:]:
        other = first(names)
        gain = quality[other] - quality[taken]
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            taken = other
    return taken


def chance(size: int) -> float:
    """Mean reciprocal rank of a guess among `size` rows."""
    return float(np.mean(1 / np.arange(1, size + 1)))


def ranks(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rank of each row's true half among all, from 1; ties count half."""
    similarities = predicted @ truth.T
    own = similarities.diagonal()[:, None]
    above = (similarities > own).sum(axis=1)
    level = (similarities == own).sum(axis=1) - 1
    return 1 + above + level / 2
