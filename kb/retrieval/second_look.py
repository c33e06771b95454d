"""Retrieval once more, by what a first look has made of the missing half, and without what it was made from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kb.embeddings import Modality, normalise, opposite
from kb.retrieval.excluded import Excluded
from kb.retrieval.fusion import FusionRetriever
from kb.retrieval.ranking import Neighbours


def search_again(
    retriever: FusionRetriever,
    embeddings: np.ndarray,
    modality: Modality,
    candidates: np.ndarray,
    ids: Sequence[str],
    without: Excluded,
    m: int,
    pseudo: np.ndarray | None = None,
) -> Neighbours:
    """The best m pairs of each query and a candidate for its missing half.

    Where the retriever orders by alpha * intra + (1 - alpha) * cross the candidate stands for the
    pseudo-embedding, and so it does where that says nothing; where it searches the other modality the sum of
    candidate and query, or candidate and pseudo-embedding, is searched for.

    Parameters
    ----------
    retriever : FusionRetriever
    embeddings : shape [n, d of modality]
    modality : the observed one
    candidates : float32 [n, d of the other]
        Unit rows.
    ids : n strings
        A query never retrieves the pair of its own id.
    without : Excluded
        What was shown before, and what must not be found besides.
    m : int
    pseudo : float32 [n, d of the other], optional
        Pseudo-embeddings, where the caller has them already.
    """
    mode, crossing = retriever.mode_of(modality), candidates
    if mode in ("cross", "pseudo"):
        if mode == "cross" and retriever.shared_space:
            pseudo = normalise(embeddings)
        elif pseudo is None:
            assert retriever.mapping is not None
            pseudo = retriever.mapping.map(
                normalise(embeddings), source=modality, target=opposite(modality)
            )
        mode, crossing = "pseudo", normalise(pseudo + candidates)
    else:
        mode = "fusion"
    by_candidate = _ByCandidate(
        retriever.embeddings,
        retriever.indexes,
        retriever.ids,
        settings=retriever.settings.model_copy(update={"mode": mode}),
        shared_space=retriever.shared_space,
        digests=retriever.digests,
        fusions=retriever.fusions,
    )
    return by_candidate.search(embeddings, modality, ids, m, crossing, without)


class _ByCandidate(FusionRetriever):
    """What is compared with the other modality is given, whatever a mapping says."""

    def alpha(self, modality: Modality) -> float:
        return float(self.settings.alpha)

    def mode_of(self, modality: Modality) -> str:
        return self.settings.mode
