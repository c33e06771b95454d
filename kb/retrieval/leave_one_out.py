"""k and alpha of fusion retrieval, measured leave-one-out on complete pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kb.embeddings import MODALITIES, Modality, opposite
from kb.index.stored_rows import scattered
from kb.retrieval.fusion import FusionRetriever
from kb.retrieval.ranking import ranked
from kb.retrieval.settings import DEFAULT_ALPHA, DEFAULT_K, RetrievalSettings

CANDIDATE_K = (5, 10, 20, 50)
CANDIDATE_ALPHA = (0.0, 0.25, 0.5, 0.75, 1.0)


def retrieval_quality(
    retriever: FusionRetriever,
    pairs: Mapping[Modality, np.ndarray],
    ids: Sequence[str],
    ks: Sequence[int],
    alphas: Sequence[float],
    pseudo: Mapping[Modality, np.ndarray] | None = None,
    without: Mapping[Modality, np.ndarray] | None = None,
) -> dict[tuple[int, float], dict[Modality, np.ndarray]]:
    """Quality of fusion retrieval at every k and alpha, row by row.

    Parameters and meaning are those of `select_retrieval`; `ids` may be of rows that the
    retriever does not hold.

    Returns
    -------
    dict of (k, alpha) to dict of modality to float array [n, examples]
        Cosine of each retrieved other half to the true one, by observed modality; not finite
        where nothing was retrieved.
    """
    settings = retriever.settings
    wide = FusionRetriever(
        {m: scattered(rows) for m, rows in retriever.embeddings.items()},
        retriever.indexes,
        retriever.ids,
        retriever.mapping,
        settings.model_copy(update={"mode": "intra", "k": max(ks)}),
        retriever.shared_space,
        retriever.digests,
    )
    figures: dict[tuple[int, float], dict[Modality, np.ndarray]] = {}
    for modality in MODALITIES:
        other = opposite(modality)
        guess = None if pseudo is None else pseudo[modality]
        found = wide.search(pairs[modality], modality, ids, max(ks), guess, without)
        truth = wide.similarities(pairs[other], other, found.rows)
        says_nothing = retriever.mapping is None or retriever.mapping.constant_[modality]
        for k in ks:
            part = (slice(None), slice(0, k))
            for alpha in alphas:
                score = found.intra[part]
                if alpha < 1 and not says_nothing:
                    score = alpha * score + (1 - alpha) * found.cross[part]
                score = np.where(found.rows[part] < 0, -np.inf, score)
                best = ranked(score, found.rows[part], wide.ids)[:, : settings.examples]
                quality = np.take_along_axis(truth[part], best, axis=1)
                figures.setdefault((k, alpha), {})[modality] = quality
    return figures


def select_retrieval(
    retriever: FusionRetriever,
    pairs: Mapping[Modality, np.ndarray],
    ids: Sequence[str],
    pseudo: Mapping[Modality, np.ndarray] | None = None,
    without: Mapping[Modality, np.ndarray] | None = None,
) -> tuple[RetrievalSettings, list[dict[str, float]]]:
    """Measures k and alpha where they are `auto`, leave-one-out on complete pairs.

    Each pair is a query by either half, retrieves neither itself nor, with `without`, another of the
    same picture or text, and the figure is the cosine
    of the retrieved other half to its true one: the mean over the examples and both modalities.

    Parameters
    ----------
    retriever : FusionRetriever
    pairs : per modality unit rows [n, d]
    ids : n strings
    pseudo : per modality [n, d of the other], optional
        Pseudo-embeddings by mappings that did not see the row. Without them the retriever's own
        mapping is used, which flatters small alphas if it was fitted on these pairs.
    without : per modality uint64 [n], optional
        Digests of the pairs' halves: pairs that share one are left out as the pair itself is.

    Returns
    -------
    settings : RetrievalSettings
        With numbers in place of `auto`.
    evidence : list of dict
        k, alpha, and quality per modality and in the mean.
    """
    settings = retriever.settings
    ks = CANDIDATE_K if settings.k == "auto" else (settings.k,)
    alphas = CANDIDATE_ALPHA if settings.alpha == "auto" else (float(settings.alpha),)
    held = len(retriever.ids)
    fixed = settings.model_copy(
        update={
            "k": DEFAULT_K if settings.k == "auto" else settings.k,
            "alpha": DEFAULT_ALPHA if settings.alpha == "auto" else settings.alpha,
        }
    )
    contested = settings.mode == "fusion" and (len(ks) > 1 or len(alphas) > 1)
    if not contested or held < 2 or len(ids) < 2:
        return fixed, []
    found = retrieval_quality(retriever, pairs, ids, ks, alphas, pseudo, without)
    if not all(np.isfinite(values).any() for each in found.values() for values in each.values()):
        # All pairs share a picture or a text: nothing is left to retrieve.
        return fixed, []
    figures = {
        point: {m: float(values[np.isfinite(values)].mean()) for m, values in by_modality.items()}
        for point, by_modality in found.items()
    }
    evidence = [
        {"k": k, "alpha": alpha, **by_modality, "mean": float(np.mean([*by_modality.values()]))}
        for (k, alpha), by_modality in figures.items()
    ]
    best_entry = max(evidence, key=lambda entry: entry["mean"])
    chosen = settings.model_copy(
        update={"k": int(best_entry["k"]), "alpha": float(best_entry["alpha"])}
    )
    return chosen, evidence
