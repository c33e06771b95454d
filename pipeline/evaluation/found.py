"""Retrieval by itself: how good an example each mode finds for rows whose hidden half is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kb.embeddings import MODALITIES, Modality, opposite
from kb.retrieval import FusionRetriever
from pipeline.evaluation.statistics import RECALL_AT

MODES = ("cross", "intra", "fusion")


def with_mode(retriever: FusionRetriever, mode: str) -> FusionRetriever:
    """The same retriever in another mode."""
    return FusionRetriever(
        retriever.embeddings,
        retriever.indexes,
        retriever.ids,
        retriever.mapping,
        retriever.settings.model_copy(update={"mode": mode}),
        retriever.shared_space,
    )


def measure_retrieval(
    retriever: FusionRetriever,
    queries: Mapping[Modality, np.ndarray],
    ids: Mapping[Modality, Sequence[str]],
    truths: Mapping[Modality, np.ndarray],
    judged: Mapping[Modality, np.ndarray],
) -> list[dict[str, Any]]:
    """R@k and quality of the example, by observed modality and mode.

    Quality is the judge's cosine of the best example's other half to the hidden half. The right
    answer of R@k is the pair that is best by that cosine among all: no label of any kind is
    needed, and an answer that is nearly as good counts as wrong.

    Parameters
    ----------
    retriever : FusionRetriever
        Over n pairs.
    queries : per observed modality, the selecting encoder's embeddings of the rows [q, d]
    ids : per observed modality, the rows' ids
    truths : per observed modality, the judge's embeddings of the hidden halves [q, e]
    judged : per modality, the judge's embeddings of that half of every pair [n, e]

    Returns
    -------
    list of dict
        `observed`, `mode`, `values` (quality of each row) and `R@1`, `R@5`, `R@10`.
    """
    results = []
    held = np.asarray(retriever.ids.to_pylist())
    most = max(RECALL_AT)
    for observed in MODALITIES:
        if len(ids.get(observed, ())) < 2:
            continue
        similarity = truths[observed] @ judged[opposite(observed)].T
        own = np.asarray(ids[observed])[:, None] == held[None, :]
        similarity[own] = -np.inf
        best = similarity.argmax(axis=1)
        for mode in MODES:
            finder = with_mode(retriever, mode)
            # Asked for more than k, fusion would order more than k.
            m = min(most, finder.k) if mode == "fusion" else most
            found = finder.search(queries[observed], observed, list(ids[observed]), m=m)
            values = similarity[np.arange(len(best)), found.rows[:, 0]]
            result: dict[str, Any] = {
                "observed": observed,
                "mode": mode,
                "values": values,
            }
            hits = found.rows == best[:, None]
            result |= {f"R@{k}": float(hits[:, :k].any(axis=1).mean()) for k in RECALL_AT}
            results.append(result)
    return results


def gain(results: Sequence[Mapping[str, Any]], observed: str, mode: str, over: str) -> np.ndarray:
    """Gain in quality of one mode over another, of each row."""
    values = {r["mode"]: r["values"] for r in results if r["observed"] == observed}
    difference: np.ndarray = values[mode] - values[over]
    return difference
