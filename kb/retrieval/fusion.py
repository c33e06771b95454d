"""Two-stage fusion retrieval: the pairs that ground a row's missing half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from kb.embeddings import Modality, normalise, opposite
from kb.index import EmbeddingIndex
from kb.index.stored_rows import StoredRows
from kb.mapping import CrossModalMapping
from kb.retrieval.consensus import consensus
from kb.retrieval.diversity import differing
from kb.retrieval.excluded import Excluded
from kb.retrieval.learned import Found, Fusion
from kb.retrieval.nearest_rows import NearestRows
from kb.retrieval.preference import Preference
from kb.retrieval.ranking import Hit, Neighbours, foremost
from kb.retrieval.settings import RetrievalSettings, asks_by_pseudo

# Of so many times k rows those k are kept that are nearest when external ones have lost what they lose.
WIDER = 4


class FusionRetriever:
    """Retrieves pairs for rows with one observed half.

    Stage 1 fetches the k nearest in the observed modality. Stage 2 orders them by
    alpha * intra + (1 - alpha) * cross + w * consensus (`kb.retrieval.consensus`).

    Parameters
    ----------
    embeddings : mapping of modality to unit rows [n, d], memory maps allowed
    indexes : mapping of modality to EmbeddingIndex over the same rows
    ids : sequence of n strings
    mapping : CrossModalMapping or None
        None: no pseudo-embeddings, alpha is 1.
    settings : RetrievalSettings
        `auto` stands for the defaults here; `kb.retrieval.leave_one_out` measures them.
    shared_space : bool
        Whether both modalities share a space, so that `cross` may compare them directly.
    digests : mapping of modality to uint64 [n], optional
        What tells the halves of the rows (`kb.pairs.half_digests`), for searches `without` some.
    fusions : mapping of modality to Fusion, optional
        In place of alpha * intra + (1 - alpha) * cross.
    preference : Preference, optional
        What external pairs lose in both stages.
    """

    def __init__(
        self,
        embeddings: Mapping[Modality, StoredRows],
        indexes: Mapping[Modality, EmbeddingIndex],
        ids: Sequence[str] | pa.Array,
        mapping: CrossModalMapping | None = None,
        settings: RetrievalSettings | None = None,
        shared_space: bool = True,
        digests: Mapping[Modality, np.ndarray] | None = None,
        fusions: Mapping[Modality, Fusion] | None = None,
        preference: Preference | None = None,
    ) -> None:
        self.embeddings = embeddings
        self.indexes = indexes
        self.ids = ids if isinstance(ids, pa.Array) else pa.array(ids, pa.string())
        self.mapping = mapping
        self.settings = settings or RetrievalSettings()
        self.shared_space = shared_space
        self.digests = digests
        self.fusions = fusions or {}
        self.preference = preference
        self._stage = NearestRows(embeddings, indexes, self.ids)
        counts = {len(self.ids), *(len(e) for e in embeddings.values())}
        counts |= {len(index) for index in indexes.values()}
        if len(counts) > 1:
            raise ValueError(f"ids, embeddings and indexes disagree in size: {sorted(counts)}")

    @property
    def settings(self) -> RetrievalSettings:
        """How it retrieves, with the defaults in place of `auto`; `asked` has what was set."""
        return self._settings

    @settings.setter
    def settings(self, asked: RetrievalSettings) -> None:
        self.asked = asked
        self._settings = asked.decided()

    @property
    def k(self) -> int:
        return int(self.settings.k)

    def _wide(self, k: int, modality: Modality) -> int:
        """What stage 1 fetches, so that k are left of which none is there by what it loses."""
        prefers = self.preference is not None and self.preference.penalty[modality] > 0
        return WIDER * k if prefers else k

    def alpha(self, modality: Modality) -> float:
        """Weight of intra; 1 where the mapping from `modality` says nothing."""
        if self.mapping is None or self.mapping.constant_[modality]:
            return 1.0
        return float(self.settings.alpha)

    def mode_of(self, modality: Modality) -> str:
        """How it retrieves from `modality`: without a mapping that says anything, by intra alone."""
        mode = self.settings.mode
        nothing = self.mapping is not None and self.mapping.constant_[modality]
        return "intra" if nothing and asks_by_pseudo(mode, self.shared_space) else mode

    def search(
        self,
        embeddings: np.ndarray,
        modality: Modality,
        ids: Sequence[str] | None = None,
        m: int | None = None,
        pseudo: np.ndarray | None = None,
        without: Mapping[Modality, np.ndarray] | Excluded | None = None,
    ) -> Neighbours:
        """The best m pairs of each query, as arrays.

        Parameters
        ----------
        embeddings : shape [n, d of modality]
        modality : the observed one
        ids : n strings, optional
            A query never retrieves the pair of its own id.
        m : int, optional
            Default `settings.examples`.
        pseudo : float32 [n, d of the other], optional
            Pseudo-embeddings, where the caller has them already.
        without : mapping of modality to uint64 [n], optional
            Digests of each query's halves, where it stands for a row that is new: pairs that share
            one are not retrieved. A text that many pairs have (`kb.groups.COMMON`) is no such half.
        """
        queries = normalise(embeddings)
        if ids is not None and len(ids) != len(queries):
            raise ValueError(f"ids must have one entry a query; got {len(ids)} for {len(queries)}")
        wanted = self.settings.examples if m is None else m
        if len(queries) == 0:
            empty = np.empty((0, wanted), np.float32)
            return Neighbours(np.empty((0, wanted), np.int64), empty, empty, empty)
        if self.settings.mode == "cross" and self.shared_space:
            pseudo = queries
        elif pseudo is None and self.mapping is not None:
            # For all queries at once: between blocks, the threads that wait for the next product
            # of matrices would take the processor from the index.
            pseudo = self.mapping.map(queries, source=modality, target=opposite(modality))
        parts = []
        excluded = Excluded.given(self.digests, without)
        k = max(self.k, wanted)
        step = self._stage.queries_at_once(modality, self._wide(k, modality), excluded)
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            parts.append(
                self._search(
                    queries[part],
                    modality,
                    None if ids is None else pa.array(ids[part], pa.string()),
                    wanted,
                    None if pseudo is None else pseudo[part],
                    None if excluded is None else excluded.of(part),
                )
            )
        return Neighbours(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("rows", "intra", "cross", "score")
            )
        )

    def _search(
        self,
        queries: np.ndarray,
        modality: Modality,
        ids: pa.Array | None,
        m: int,
        crossing: np.ndarray | None,
        excluded: Excluded | None,
    ) -> Neighbours:
        """`crossing` is what is compared with the other modality."""
        other = opposite(modality)
        k = max(self.k, m)
        mode, wide = self.mode_of(modality), self._wide(k, modality)
        if mode in ("cross", "pseudo"):
            if crossing is None:
                raise ValueError(f"mode {mode} needs a mapping or encoders that share a space")
            rows, cross = self._stage.search(crossing, other, ids, wide, excluded)
            intra, score = self.similarities(queries, modality, rows), cross
        else:
            rows, intra = self._stage.search(queries, modality, ids, wide, excluded)
            if wide > k:
                assert self.preference is not None
                liked = intra - self.preference.loss(modality, rows)
                kept = foremost(liked, rows, self.ids, k)
                rows, intra = (np.take_along_axis(array, kept, axis=1) for array in (rows, intra))
            cross = np.full_like(intra, np.nan)
            if crossing is not None:
                cross = self.similarities(crossing, other, rows)
            score = intra
            fusion = self.fusions.get(modality) if mode == "fusion" else None
            if fusion is not None and crossing is not None:
                held = self.embeddings[modality], self.embeddings[other]
                score = fusion.score(Found(queries, crossing, rows, intra, cross, *held))
            elif mode == "fusion" and (alpha := self.alpha(modality)) < 1:
                score = alpha * intra + (1 - alpha) * cross
        if weight := float(self.settings.consensus):
            score = score + weight * consensus(self.embeddings[other], rows, score)
        if self.preference is not None:
            score = score - self.preference.loss(modality, rows)
        order = differing(self.embeddings[other], rows, score, self.ids, m, self.settings.diversity)
        rows, intra, cross, score = (
            np.take_along_axis(array, order, axis=1) for array in (rows, intra, cross, score)
        )
        intra, cross, score = (np.where(rows < 0, np.nan, x) for x in (intra, cross, score))
        if rows.shape[1] < m:
            gap = ((0, 0), (0, m - rows.shape[1]))
            rows = np.pad(rows, gap, constant_values=-1)
            intra, cross, score = (
                np.pad(x, gap, constant_values=np.nan) for x in (intra, cross, score)
            )
        return Neighbours(rows, intra, cross, score)

    def similarities(self, queries: np.ndarray, modality: Modality, rows: np.ndarray) -> np.ndarray:
        """Cosines of each unit query to its rows: see `NearestRows.similarities`."""
        return self._stage.similarities(queries, modality, rows)

    def retrieve(
        self,
        embeddings: np.ndarray,
        modality: Modality,
        ids: Sequence[str] | None = None,
        m: int | None = None,
    ) -> list[list[Hit]]:
        """`search` as records: per query at most m hits, best first."""
        return self.search(embeddings, modality, ids, m).hits(self.ids)
