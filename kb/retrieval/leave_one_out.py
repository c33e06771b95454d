"""How to retrieve, measured leave-one-out on complete pairs: mode, k, alpha and consensus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kb.embeddings import MODALITIES, Modality, opposite
from kb.index.stored_rows import scattered
from kb.retrieval.consensus import consensus
from kb.retrieval.fusion import FusionRetriever
from kb.retrieval.learned import Found
from kb.retrieval.ranking import Neighbours, foremost
from kb.retrieval.settings import RetrievalSettings, asks_by_pseudo

CANDIDATE_K = (5, 10, 20, 50, 100, 200, 400)
CANDIDATE_ALPHA = (0.0, 0.25, 0.5, 0.75, 1.0)
CANDIDATE_CONSENSUS = (0.1, 0.25, 0.5, 1.0)

# Standard errors that a gain over the paper's values must exceed.
ERRORS = 1.0


class Point(NamedTuple):
    """One way to retrieve; alpha is NaN in modes that have none."""

    mode: str
    k: int
    alpha: float
    consensus: float = 0.0


Quality = dict[Modality, np.ndarray]


class LeaveOneOut:
    """Retrieves for complete pairs by either half, and compares what it finds with the other.

    Parameters
    ----------
    retriever : FusionRetriever
        Its mapping is not used.
    pairs : per modality unit rows [n, d]
    ids : n strings
        May be of rows that the retriever does not hold.
    without : per modality uint64 [n], optional
        Digests of the pairs' halves: pairs that share one are left out as the pair itself is.
    """

    def __init__(
        self,
        retriever: FusionRetriever,
        pairs: Mapping[Modality, np.ndarray],
        ids: Sequence[str],
        without: Mapping[Modality, np.ndarray] | None = None,
    ) -> None:
        self.retriever = retriever
        self.pairs = pairs
        self.ids = ids
        self.without = without
        # Read where they lie: these searches would bring all that is stored into memory.
        self._stored = {m: scattered(rows) for m, rows in retriever.embeddings.items()}
        self._found: dict[Any, tuple[Neighbours, np.ndarray]] = {}

    def quality(
        self, modality: Modality, points: Sequence[Point], pseudo: np.ndarray | None
    ) -> dict[Point, np.ndarray]:
        """Cosine of the first retrieved other half to the true one, by the ways to retrieve.

        The first alone, however many examples a row is shown: it is the one that every generator sees, and
        the mean of several prefers what is alike on average (on the scenes it took retrieval by the
        pseudo-embedding alone, whose first of three examples shared a thing in 61 of 100 rows for 87).

        Parameters
        ----------
        modality : the observed one
        points : sequence of Point
        pseudo : float32 [n, d of the other] or None
            Pseudo-embeddings by a mapping that did not see the row; None where none says anything.

        Returns
        -------
        dict of Point to float array [n]; NaN where nothing was retrieved
        """
        other = opposite(modality)
        figures: dict[Point, np.ndarray] = {}
        crossing: np.ndarray | None = None
        widest = {point.mode: 1 for point in points}
        for point in points:
            widest[point.mode] = max(widest[point.mode], point.k)
        for point in points:
            wide = widest[point.mode]
            guesses = asks_by_pseudo(point.mode, self.retriever.shared_space)
            mode = "intra" if guesses and pseudo is None else point.mode
            found, truth = self._wide(modality, mode, wide, pseudo)
            part = (slice(None), slice(0, max(point.k, 1)))
            rows, score = found.rows[part], found.intra[part]
            if mode in ("cross", "pseudo"):
                score = found.score[part]
            elif mode == "fusion" and point.alpha < 1 and pseudo is not None:
                if crossing is None:
                    finder = self._finder("intra", wide)
                    crossing = finder.similarities(pseudo, other, found.rows)
                score = point.alpha * score + (1 - point.alpha) * crossing[part]
            score = np.where(rows < 0, -np.inf, score)
            if point.consensus > 0:
                score = score + point.consensus * consensus(self._stored[other], rows, score)
            best = foremost(score, rows, self.retriever.ids, 1)
            like = np.take_along_axis(truth[part], best, axis=1)
            there = np.isfinite(like).any(axis=1)
            figures[point] = np.where(there, like.sum(axis=1), np.nan)
        return figures

    def candidates(
        self, modality: Modality, k: int, pseudo: np.ndarray
    ) -> tuple[Found, np.ndarray]:
        """What stage 1 finds, and the cosines of its other halves to the true ones, [n, k]."""
        other = opposite(modality)
        hits, truth = self._wide(modality, "fusion", k, pseudo)
        cross = self._finder("intra", k).similarities(pseudo, other, hits.rows)
        there = hits.rows >= 0
        intra, cross, truth = (
            np.where(there, x, np.float32(0)) for x in (hits.intra, cross, truth)
        )
        held = self._stored[modality], self._stored[other]
        return Found(self.pairs[modality], pseudo, hits.rows, intra, cross, *held), truth

    def _wide(
        self, modality: Modality, mode: str, k: int, pseudo: np.ndarray | None
    ) -> tuple[Neighbours, np.ndarray]:
        """The k nearest of stage 1, and the cosines of their other halves to the true ones."""
        first = mode if mode in ("cross", "pseudo") else "intra"
        key = (modality, first, k)
        if key in self._found:
            return self._found[key]
        finder = self._finder(first, k)
        guesses = asks_by_pseudo(first, self.retriever.shared_space)
        guess = pseudo if guesses else None
        found = finder.search(self.pairs[modality], modality, self.ids, k, guess, self.without)
        other = opposite(modality)
        answer = found, finder.similarities(self.pairs[other], other, found.rows)
        if not guesses:
            self._found[key] = answer
        return answer

    def _finder(self, mode: str, k: int) -> FusionRetriever:
        return FusionRetriever(
            self._stored,
            self.retriever.indexes,
            self.retriever.ids,
            None,
            RetrievalSettings(mode=mode, k=k),
            self.retriever.shared_space,
            self.retriever.digests,
        )

    def points(self) -> list[Point]:
        """The ways that the settings leave open, without consensus; those of fusion first."""
        settings = self.retriever.asked
        ks = CANDIDATE_K if settings.k == "auto" else (settings.k,)
        alphas = CANDIDATE_ALPHA if settings.alpha == "auto" else (float(settings.alpha),)
        decided = settings.decided()
        modes: list[str] = [settings.mode]
        if settings.mode == "auto":
            modes = ["fusion", "pseudo", *(["cross"] if self.retriever.shared_space else [])]
        points: list[Point] = []
        for mode in modes:
            if mode == "fusion":
                points += [Point(mode, k, alpha) for k in ks for alpha in alphas]
            else:
                points.append(Point(mode, int(decided.k), np.nan))
        return points


def select_retrieval(
    trials: LeaveOneOut, pseudo: Mapping[Modality, np.ndarray | None]
) -> tuple[RetrievalSettings, list[dict[str, Any]]]:
    """Measures what the settings leave open, leave-one-out on complete pairs.

    The figure is the cosine of the first retrieved other half to the true one: the mean over both
    modalities. What is best stands in place of the paper's values (fusion,
    k = 10, alpha = 0.5, no consensus) if it gains more than its standard error over them;
    consensus is measured last, beside what was chosen without.

    Parameters
    ----------
    trials : LeaveOneOut
    pseudo : per observed modality [n, d of the other], or None
        Pseudo-embeddings by mappings that did not see the row; None where the mapping says nothing.

    Returns
    -------
    settings : RetrievalSettings
        With values in place of `auto`.
    evidence : list of dict
        mode, k, alpha, consensus, and quality per modality and in the mean; with `gain` and its
        `standard_error` over the first, where there is consensus over the same without.
    """
    asked = trials.retriever.asked
    decided = asked.decided()
    contested = "auto" in (asked.mode, asked.k, asked.alpha, asked.consensus)
    if not contested or len(trials.retriever.ids) < 2 or len(trials.ids) < 2:
        return decided, []
    plain = Point(decided.mode, int(decided.k), float(decided.alpha))
    if plain.mode != "fusion":
        plain = plain._replace(alpha=np.nan)
    points = list(dict.fromkeys([plain, *trials.points()]))
    fixed = 0.0 if asked.consensus == "auto" else float(asked.consensus)
    points = [point._replace(consensus=fixed) for point in points]
    best, evidence = _best(trials, points, pseudo)
    if best is None:
        # All pairs share a picture or a text: nothing is left to retrieve.
        return decided, []
    if asked.consensus == "auto":
        tried = [best, *(best._replace(consensus=weight) for weight in CANDIDATE_CONSENSUS)]
        if best.mode != "fusion" and asked.k == "auto":
            # Alone, these modes need no candidates but the best.
            tried = [best, *(p._replace(k=k) for p in tried[1:] for k in (20, 100))]
        with_it, more = _best(trials, tried, pseudo)
        assert with_it is not None
        best, evidence = with_it, evidence + more[1:]
    values: dict[str, Any] = {"mode": best.mode, "k": best.k, "consensus": best.consensus}
    if best.mode == "fusion":
        values["alpha"] = best.alpha
    return decided.model_copy(update=values), evidence


def _best(
    trials: LeaveOneOut, points: Sequence[Point], pseudo: Mapping[Modality, np.ndarray | None]
) -> tuple[Point | None, list[dict[str, Any]]]:
    """The best of some points, or the first if that gains less than its standard error over it."""
    found = {m: trials.quality(m, points, pseudo[m]) for m in MODALITIES}
    rows = {point: {m: found[m][point] for m in MODALITIES} for point in points}
    if not all(np.isfinite(values).any() for each in rows.values() for values in each.values()):
        return None, []
    evidence: list[dict[str, Any]] = []
    for point, by_modality in rows.items():
        both = np.mean([by_modality[m] for m in MODALITIES], axis=0)
        first = np.mean([rows[points[0]][m] for m in MODALITIES], axis=0)
        gain = (both - first)[np.isfinite(both - first)]
        means = {str(m): float(np.nanmean(values)) for m, values in by_modality.items()}
        evidence.append(
            {
                "mode": point.mode,
                "k": point.k,
                "alpha": None if np.isnan(point.alpha) else point.alpha,
                "consensus": point.consensus,
                **means,
                "mean": float(np.mean([*means.values()])),
                "gain": float(gain.mean()) if len(gain) else 0.0,
                "standard_error": (
                    float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0
                ),
            }
        )
    highest = max(range(len(points)), key=lambda number: evidence[number]["mean"])
    gains = evidence[highest]["gain"] > ERRORS * evidence[highest]["standard_error"]
    return points[highest if gains else 0], evidence


def judge_examples(
    trials: LeaveOneOut, source: Modality, predictions: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """How like the truth the examples are that are found with each candidate's predictions.

    Each is judged by the way to retrieve that suits it best, of those that the settings leave open.

    Parameters
    ----------
    trials : LeaveOneOut
    source : the observed modality
    predictions : per candidate unit rows [n, d of the other]

    Returns
    -------
    dict of candidate to float array [n]; 0 where nothing was retrieved
    """
    points = trials.points()
    judged = {}
    for name, rows in predictions.items():
        by_point = trials.quality(source, points, rows).values()
        judged[name] = max((np.nan_to_num(values) for values in by_point), key=np.mean)
    return judged
