"""The knowledge base as pairs see it that it was made from: without them, and predicted out of fold.

What completes a checked pair has not been told of it. Its missing half is predicted by a mapping that was
fitted without it (of the five of the cross-validation at the build the one that left out its fold, which
holds all of its group); neither the pair, nor what shares a picture or a text with it, nor any pair whose
picture is a near-duplicate of its own is retrieved; and its own pseudo-text has no part in the hubness of
its captions. The mapping, the mode of retrieval, k, alpha and consensus were chosen among a few dozen by
the mean over all pairs that are predicted out of fold, checked ones among them: that is no fit to any.

The price is that such a mapping learned from four fifths of the pairs: the check errs, if at all, by
finding rows a little worse than they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from generators.base import derive_seed
from kb.embeddings import MODALITIES, Modality, normalise, take
from kb.knowledge_base import KnowledgeBase
from kb.mapping.held_out import HeldOut
from kb.retrieval import Hit
from kb.retrieval.excluded import MOST_LEFT_OUT, Excluded
from kb.retrieval.second_look import search_again
from pipeline.dataset.settings import INTERNAL
from pipeline.knowledge.standing import Pair, StandingKnowledge
from selection.scoring import Selector

# Random halves that a truth is compared with.
RANDOM_PAIRS = 32


class KnowledgeApart:
    """A `pipeline.knowledge.seen.Knowledge` for pairs that the standing one was made from.

    Parameters
    ----------
    standing : StandingKnowledge
    duplicate_cosine : float
        Pairs whose pictures have this cosine to a row's own are its near-duplicates.
    seed : int
        Of the random halves.
    """

    def __init__(self, standing: StandingKnowledge, duplicate_cosine: float, seed: int) -> None:
        self._standing = standing
        self._cosine = duplicate_cosine
        self._seed = seed
        self._held: _Held | None = None

    @property
    def base(self) -> KnowledgeBase:
        """All of it."""
        return self._standing.base

    def pairs(
        self, rows: Sequence[int], with_images: bool, longest_side: int | None = None
    ) -> dict[int, Pair]:
        """Pairs by row; see `StandingKnowledge.pairs`."""
        return self._standing.pairs(rows, with_images, longest_side)

    def pseudo(
        self, embeddings: np.ndarray, observed: Modality, ids: Sequence[str]
    ) -> np.ndarray | None:
        """What mappings that did not see the rows predict of their halves, [n, d]."""
        if self.base.mapping.constant_[observed]:
            return None
        held = self._of_base.held_out
        return normalise(held.predictions[observed][self._of_base.predicted(ids)])

    def retrieve(
        self, embeddings: np.ndarray, observed: Modality, ids: Sequence[str]
    ) -> list[list[Hit]]:
        """The pairs that ground each row, best first: none that tells of it."""
        retriever = self.base.retriever
        pseudo, left_out = self.pseudo(embeddings, observed, ids), self._telling(ids)
        found = retriever.search(embeddings, observed, ids, pseudo=pseudo, without=left_out)
        return found.hits(retriever.ids)

    def retrieve_again(
        self,
        embeddings: np.ndarray,
        observed: Modality,
        ids: Sequence[str],
        candidates: np.ndarray,
        seen: np.ndarray,
        count: int,
    ) -> list[list[Hit]]:
        """As `StandingKnowledge.retrieve_again`: none that tells of a row."""
        retriever, left_out = self.base.retriever, self._telling(ids, seen)
        pseudo = self.pseudo(embeddings, observed, ids)
        found = search_again(
            retriever, embeddings, observed, candidates, ids, left_out, count, pseudo
        )
        return found.hits(retriever.ids)

    def _telling(self, ids: Sequence[str], seen: np.ndarray | None = None) -> Excluded:
        """What tells of rows, and what else they are not to see, int64 [n, w] with -1 for none."""
        held = self._of_base
        rows = held.rows(ids)
        own = {m: held.digests[m][rows] for m in MODALITIES}
        near = self._near(rows)
        named = near if seen is None else np.concatenate([near, seen], axis=1)
        return Excluded.among(held.digests, own).and_rows(named)

    def _near(self, rows: np.ndarray) -> np.ndarray:
        """Rows whose pictures are near-duplicates of those of some rows, int64 [n, w]; -1 for none."""
        retriever = self.base.retriever
        pictures = normalise(take(self.base.embeddings["image"], rows))
        found = retriever.indexes["image"].search(pictures, MOST_LEFT_OUT)[1]
        cosines = retriever.similarities(pictures, "image", found)
        near = np.where(cosines >= self._cosine, found, -1)
        return near[:, (near >= 0).any(axis=0)]

    def selector_of(self, row_id: str) -> Selector:
        """The selector without what is predicted of the row's own picture."""
        selector = self._standing.selector
        if selector.pseudo_texts is None:
            return selector
        others = self._of_base.hub_pictures[: len(selector.pseudo_texts)]
        apart = others != self._of_base.digests["image"][self._of_base.rows([row_id])]
        return Selector(
            selector.settings,
            selector.standards,
            selector.niqe_model,
            selector.pseudo_texts[apart],
        )

    def random_halves(self, row_id: str, missing: Modality) -> np.ndarray:
        """Halves [n, d] of random pairs of the dataset that share none with a row."""
        held, [row] = self._of_base, self._of_base.rows([row_id])
        generator = np.random.default_rng(derive_seed(self._seed, row_id, 0, 0))
        count = min(len(held.own), 2 * RANDOM_PAIRS)
        rows = np.sort(generator.choice(held.own, count, replace=False))
        shared = (held.digests[m][rows] == held.digests[m][row] for m in MODALITIES)
        rows = rows[~np.logical_or(*shared)][:RANDOM_PAIRS]
        return self.halves(rows, missing)

    def halves(self, rows: np.ndarray | Sequence[int], missing: Modality) -> np.ndarray:
        """Halves [n, d] of pairs of the knowledge base by row, unit rows."""
        return normalise(take(self.base.embeddings[missing], np.asarray(rows, np.int64)))

    @property
    def _of_base(self) -> _Held:
        if self._held is None or self._held.base is not self.base:
            self._held = _Held(self.base)
        return self._held


@dataclass
class _Held:
    """What is looked up of a knowledge base."""

    base: KnowledgeBase

    @cached_property
    def held_out(self) -> HeldOut:
        found = self.base.held_out()
        assert found is not None
        return found

    @cached_property
    def digests(self) -> dict[Modality, np.ndarray]:
        found = self.base.retriever.digests
        assert found is not None
        return dict(found)

    @cached_property
    def own(self) -> np.ndarray:
        """Rows of the dataset's own pairs."""
        source = self.base.pairs["source"]
        return np.flatnonzero(pc.equal(source, INTERNAL).to_numpy(zero_copy_only=False))

    @cached_property
    def _places(self) -> np.ndarray:
        """Rows of the pairs that are predicted out of fold, int64 [r]; -1 for one that has left."""
        ids = pa.array(self.held_out.ids, pa.string())
        found = pc.index_in(ids, value_set=self.base.retriever.ids)
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def hub_pictures(self) -> np.ndarray:
        """Digests of their pictures, uint64 [r]; 0 for one that has left."""
        digests = self.digests["image"][self._places.clip(0)]
        return np.where(self._places < 0, 0, digests).astype(np.uint64)

    @cached_property
    def _predicted(self) -> dict[str, int]:
        return {row_id: place for place, row_id in enumerate(self.held_out.ids)}

    def predicted(self, ids: Sequence[str]) -> list[int]:
        """Where rows stand among those that are predicted out of fold."""
        return [self._predicted[row_id] for row_id in ids]

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Rows of the knowledge base, int64, of pairs that are predicted out of fold."""
        found = self._places[self.predicted(ids)]
        assert (found >= 0).all()
        return found
