"""What external pairs lose in retrieval, measured leave-one-out by the half that would be shown.

A picture is compared with the true one by its embedding, a text by its letters: an embedding is made
to overlook how a thing is worded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from kb.embeddings import MODALITIES, Modality, opposite, sample_rows
from kb.index.stored_rows import inner_products
from kb.retrieval.fusion import FusionRetriever
from kb.retrieval.leave_one_out import LeaveOneOut
from kb.retrieval.preference import Preference, likeness
from kb.retrieval.settings import asks_by_pseudo

CANDIDATE_PENALTIES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
# Queries that it is measured by: fewer teach nothing, more are not needed.
FEWEST, MOST = 32, 1024
# Standard errors that a gain over no penalty must exceed.
ERRORS = 2.0
# The captions of some rows of a table, by their numbers.
Captions = Callable[[np.ndarray], Sequence[Sequence[str]]]


def learn_penalty(
    retriever: FusionRetriever,
    asked: float | Literal["auto"],
    external: np.ndarray,
    trials: LeaveOneOut,
    pseudo: Mapping[Modality, np.ndarray | None],
    captions: tuple[Captions, Captions] | None,
    random_state: int = 0,
) -> tuple[dict[Modality, float], dict[str, Any]]:
    """What external pairs lose, by the half that a query has.

    Parameters
    ----------
    retriever : FusionRetriever
        Settled in all else; its mapping is not used.
    asked : float or "auto"
        What was set: a number stands for both.
    external : bool [n]
        Of the retriever's rows.
    trials : LeaveOneOut
        The pairs that ask.
    pseudo : per observed modality [n, d of the other], or None
        Pseudo-embeddings by mappings that did not see the row; None where the mapping says nothing.
    captions : two callables, optional
        The captions of the retriever's rows, and of those that ask. Without them texts are compared by
        their embeddings.
    random_state : int

    Returns
    -------
    penalties : dict of modality to float
        0 where no gain exceeds twice its standard error, and where nothing can be measured.
    evidence : dict
        Per observed modality, for each penalty: `penalty`, `quality` of what it finds, `gain` over
        none, and its `standard_error`.
    """
    if asked != "auto":
        return dict.fromkeys(MODALITIES, float(asked)), {}
    penalties: dict[Modality, float] = dict.fromkeys(MODALITIES, 0.0)
    evidence: dict[str, Any] = {}
    if len(trials.ids) < FEWEST or external.all() or not external.any():
        return penalties, evidence
    chosen = sample_rows(len(trials.ids), MOST, random_state)
    for modality in MODALITIES:
        guess = pseudo[modality]
        if guess is None and asks_by_pseudo(retriever.settings.mode, retriever.shared_space):
            continue
        found = [
            _found(
                retriever,
                Preference(external, {modality: penalty}),
                modality,
                trials,
                chosen,
                guess,
            )
            for penalty in CANDIDATE_PENALTIES
        ]
        other = opposite(modality)
        qualities = []
        for rows in found:
            quality = np.full(len(rows), np.nan)
            there = rows >= 0
            if other == "text" and captions is not None:
                of_rows, of_queries = captions
                both = zip(of_rows(rows[there]), of_queries(chosen[there]), strict=True)
                quality[there] = [likeness(shown, true) for shown, true in both]
            else:
                truth, base = trials.pairs[other][chosen[there]], retriever.embeddings[other]
                quality[there] = inner_products(truth, base, rows[there][:, None])[:, 0]
            qualities.append(quality)
        penalties[modality], evidence[modality] = _best(qualities)
    return penalties, evidence


def _found(
    retriever: FusionRetriever,
    preference: Preference,
    modality: Modality,
    trials: LeaveOneOut,
    chosen: np.ndarray,
    guess: np.ndarray | None,
) -> np.ndarray:
    """The row that each of the chosen pairs retrieves first, int64; -1 where there is none."""
    preferring = copy.copy(retriever)
    preferring.preference = preference
    without = trials.without
    found = preferring.search(
        trials.pairs[modality][chosen],
        modality,
        [trials.ids[n] for n in chosen],
        1,
        None if guess is None else guess[chosen],
        None if without is None else {m: without[m][chosen] for m in MODALITIES},
    )
    rows: np.ndarray = found.rows[:, 0]
    return rows


def _best(qualities: Sequence[np.ndarray]) -> tuple[float, list[dict[str, float]]]:
    """The penalty that finds the best, if it gains enough over none; and what each gives."""
    evidence = []
    for penalty, quality in zip(CANDIDATE_PENALTIES, qualities, strict=True):
        gain = quality - qualities[0]
        gain = gain[np.isfinite(gain)]
        evidence.append(
            {
                "penalty": penalty,
                "quality": float(np.nanmean(quality)) if len(gain) else 0.0,
                "gain": float(gain.mean()) if len(gain) else 0.0,
                "standard_error": (
                    float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0
                ),
            }
        )
    best = max(evidence, key=lambda entry: entry["gain"])
    gains = best["gain"] > ERRORS * best["standard_error"]
    return (best["penalty"] if gains else 0.0), evidence
