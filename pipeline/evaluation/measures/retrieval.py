"""Retrieval by itself: how good an example each mode finds for rows whose hidden half is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kb.embeddings import MODALITIES, Modality, opposite
from kb.retrieval import FusionRetriever
from pipeline.check.intervals import interval
from pipeline.evaluation.protocol.world import World
from pipeline.evaluation.results.ranked import RECALL_AT
from pipeline.job import Job

MODES = ("cross", "intra", "pseudo", "fusion")


def retrieval_figures(
    job: Job, world: World, hidden: Mapping[str, Modality]
) -> list[dict[str, Any]]:
    """Quality of the example and recall of a job's retrieval, by observed half and mode.

    Parameters
    ----------
    job : Job
        Whose knowledge base is searched.
    world : World
    hidden : id to hidden half

    Returns
    -------
    list of dict
        `group` "retrieval", `missing`, `mode`, `used` (whether the job retrieves so), `measure`,
        `value`; where the measure is a mean over rows also `half` (of its 95 % interval) and `rows`,
        the value of each by id.
    """
    retriever = job.knowledge.checked().retriever
    ids: dict[Modality, list[str]] = {
        observed: [row_id for row_id, half in hidden.items() if half == opposite(observed)]
        for observed in MODALITIES
    }
    groups = world.views.groups
    # One group alone says nothing of others.
    ids = {m: own if len({groups[i] for i in own}) > 1 else [] for m, own in ids.items()}
    found = measure_retrieval(
        retriever,
        {m: world.views.embeddings_of(ids[m], m, judge=False) for m in MODALITIES},
        ids,
        {m: world.views.embeddings_of(ids[m], opposite(m), judge=True) for m in MODALITIES},
        world.views.judged_by_id(retriever.ids.to_pylist()),
    )
    used = retriever.settings.mode
    records: list[dict[str, Any]] = []
    for one in found:
        common = {
            "group": "retrieval",
            "missing": opposite(one["observed"]),
            "mode": one["mode"],
            "used": one["mode"] == used,
        }
        by_row = {"quality": one["values"]} | {
            f"gain over {mode}": gain(found, one["observed"], one["mode"], mode)
            for mode in MODES[: MODES.index(one["mode"])]
        }
        for measure, values in by_row.items():
            mean = interval(values, [groups[row_id] for row_id in ids[one["observed"]]])
            rows = dict(zip(ids[one["observed"]], values.tolist(), strict=True))
            records.append(
                common | {"measure": measure, "value": mean.mean, "half": mean.half, "rows": rows}
            )
        records += [common | {"measure": k, "value": one[k]} for k in one if k.startswith("R@")]
    return records


def with_mode(retriever: FusionRetriever, mode: str) -> FusionRetriever:
    """The same retriever in another mode; consensus was measured for its own alone."""
    own = retriever.settings
    weight = own.consensus if mode == own.mode else 0
    return FusionRetriever(
        retriever.embeddings,
        retriever.indexes,
        retriever.ids,
        retriever.mapping,
        own.model_copy(update={"mode": mode, "consensus": weight}),
        retriever.shared_space,
        fusions=retriever.fusions,
        preference=retriever.preference,
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
            if mode == "pseudo" and retriever.mapping is None:
                continue
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
