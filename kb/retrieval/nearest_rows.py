"""Stage 1: the rows of an index nearest to each query, without those that it may not find."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kb.embeddings import Modality
from kb.index import EmbeddingIndex
from kb.index.kinds import REFINE
from kb.index.stored_rows import StoredRows, inner_products
from kb.retrieval.excluded import Excluded
from kb.retrieval.ranking import TOLERANCE, ranked

# Fetched beyond k, so that the row itself and ties at the edge do not cost a place.
SPARE = 4
# Where more than those are level with the k-th, so many are fetched at most to find the lowest ids
# among them: what faiss gives on a GPU. Of more level rows the index says which are considered.
MOST_FETCHED = 2048
# Candidates held at once, with their figures some 50 bytes each.
CANDIDATES_AT_ONCE = 1024 * 1024


class NearestRows:
    """Searches the indexes of a knowledge base's rows.

    Parameters
    ----------
    embeddings : mapping of modality to unit rows [n, d], memory maps allowed
    indexes : mapping of modality to EmbeddingIndex over the same rows
    ids : pyarrow string array [n]
    """

    def __init__(
        self,
        embeddings: Mapping[Modality, StoredRows],
        indexes: Mapping[Modality, EmbeddingIndex],
        ids: pa.Array,
    ) -> None:
        self.embeddings = embeddings
        self.indexes = indexes
        self.ids = ids

    def queries_at_once(self, modality: Modality, k: int, excluded: Excluded | None) -> int:
        """How many queries are searched for k rows at once, for memory's sake."""
        return max(1, CANDIDATES_AT_ONCE // self._fetched(modality, k, excluded))

    def _fetched(self, modality: Modality, k: int, excluded: Excluded | None) -> int:
        more = 0 if excluded is None else excluded.most
        return k * REFINE[self.indexes[modality].kind] + SPARE + more

    def search(
        self,
        probe: np.ndarray,
        modality: Modality,
        ids: pa.Array | None,
        k: int,
        excluded: Excluded | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """At most k rows and their cosines, best first; -1 and -inf where there is none.

        The queries' own rows are left out. A query whose k-th row is level with all that follow is
        searched again for four times as many, until they end or `MOST_FETCHED` is reached: so the
        rows do not depend on the order in which equal ones are stored.
        """
        fetched = self._fetched(modality, k, excluded)
        rows, cosines, open_ended = self._fetch(probe, modality, ids, k, fetched, excluded)
        while open_ended.any() and fetched < MOST_FETCHED:
            fetched = min(4 * fetched, MOST_FETCHED)
            again = np.flatnonzero(open_ended)
            step = max(1, CANDIDATES_AT_ONCE // fetched)
            for start in range(0, len(again), step):
                part = again[start : start + step]
                own = None if ids is None else ids.take(pa.array(part))
                left_out = None if excluded is None else excluded.of(part)
                rows[part], cosines[part], open_ended[part] = self._fetch(
                    probe[part], modality, own, k, fetched, left_out
                )
        return rows, cosines

    def _fetch(
        self,
        probe: np.ndarray,
        modality: Modality,
        ids: pa.Array | None,
        k: int,
        fetched: int,
        excluded: Excluded | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The best k of so many rows, their cosines, and whether rows like the k-th were left out.

        Shapes [n, k], or less where the index holds less, and bool [n].
        """
        index = self.indexes[modality]
        by_index, rows = index.search(probe, fetched)
        cut = (rows[:, -1] >= 0) if fetched < len(index) else np.zeros(len(rows), dtype=bool)
        if ids is not None and rows.size:
            found = self.ids.take(pa.array(rows.ravel().clip(0)))
            own = ids.take(pa.array(np.repeat(np.arange(len(rows)), rows.shape[1])))
            same = pc.equal(found, own).to_numpy(zero_copy_only=False).reshape(rows.shape)
            rows = np.where(same, -1, rows)
        if excluded is not None:
            rows = np.where(excluded.found(rows), -1, rows)
        exact = by_index
        if REFINE[index.kind] > 1:
            exact = self.similarities(probe, modality, rows)
        exact = np.where(rows < 0, np.float32(-np.inf), exact)
        order = ranked(exact, rows, self.ids)[:, :k]
        if cut.any():
            # By the index's own figures, which decided what was fetched.
            last = np.take_along_axis(by_index, order[:, -1:], axis=1)
            # Most queries are told apart by what so many gaps could add up to.
            cut &= last[:, 0] - by_index[:, -1] <= TOLERANCE * fetched
            near = np.flatnonzero(cut)
            gaps = by_index[near, :-1] - by_index[near, 1:] > TOLERANCE
            cut[near] = ~(gaps & (by_index[near, :-1] <= last[near])).any(axis=1)
        best = np.take_along_axis(rows, order, axis=1), np.take_along_axis(exact, order, axis=1)
        return *best, cut

    def similarities(self, queries: np.ndarray, modality: Modality, rows: np.ndarray) -> np.ndarray:
        """Cosines of each unit query to its rows, float32 [n, k]; -inf where there is none.

        The rows are as they are stored: in half precision their length is 1 to within 1e-4.
        """
        return inner_products(queries, self.embeddings[modality], rows)
