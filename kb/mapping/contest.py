"""The contest of mappings: what they predict out of fold, and how well it finds the true half.

Mean cosine would not do as a judge: predictions are only ever compared with each other, and one
near the mean has a high cosine to everything and tells nothing apart. (Example world, 50 pairs,
text to image: ridge has the higher cosine, and recall at 5 among 500 of 0.48 against 0.80 by the
mean shift.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kb.embeddings import MODALITIES, Modality, opposite
from kb.groups import deal
from kb.mapping.regressors import Regressor

Figures = dict[str, float]


def out_of_fold(
    candidates: Mapping[str, Callable[[], Regressor]],
    pairs: Mapping[Modality, np.ndarray],
    groups: np.ndarray,
    folds: int,
    generator: np.random.Generator,
    random_state: int,
) -> dict[str, dict[Modality, np.ndarray]]:
    """Predictions of every row by candidates that were fitted without its fold.

    Parameters
    ----------
    candidates : mapping
        Name to a maker of a regressor to be fitted.
    pairs : per modality unit rows [n, d]
    groups : int64 [n]
        Rows of a group are held out together.
    folds : int
        Clamped to the number of groups.
    generator : Generator
        Deals the folds.
    random_state : int
        Seeds the fits.

    Returns
    -------
    dict
        Per candidate, and for `mean` (the mean of the other modality), per source modality
        float32 [n, d of the other].
    """
    fold = deal(groups, folds, generator)
    predictions: dict[str, dict[Modality, np.ndarray]] = {
        name: {m: np.empty_like(pairs[opposite(m)]) for m in MODALITIES}
        for name in (*candidates, "mean")
    }
    for number in range(fold.max() + 1):
        held, used = fold == number, fold != number
        seen = {m: pairs[m][used] for m in MODALITIES}
        for name, make in candidates.items():
            model = make().fit(seen, random_state + number, groups[used])
            for source in MODALITIES:
                predictions[name][source][held] = model.predict(pairs[source][held], source)
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
