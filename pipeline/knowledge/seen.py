"""What rows meet of a knowledge base on their way, whichever way they are to see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from kb.embeddings import Modality
from kb.knowledge_base import KnowledgeBase
from kb.retrieval import Hit
from pipeline.knowledge.standing import Pair
from selection.scoring import Selector


class Knowledge(Protocol):
    """A knowledge base as some rows see it.

    `StandingKnowledge` is what rows see that are to be completed. Pairs that it was made from see it
    without themselves (`pipeline.check.apart.KnowledgeApart`).
    """

    @property
    def base(self) -> KnowledgeBase:
        """All of it."""
        ...

    def pseudo(
        self, embeddings: np.ndarray, observed: Modality, ids: Sequence[str]
    ) -> np.ndarray | None:
        """Pseudo-embeddings [n, d] of the missing half; None where the mapping says nothing."""
        ...

    def retrieve(
        self, embeddings: np.ndarray, observed: Modality, ids: Sequence[str]
    ) -> list[list[Hit]]:
        """The pairs that ground each row, best first, by the embeddings [n, d] of its observed half."""
        ...

    def retrieve_again(
        self,
        embeddings: np.ndarray,
        observed: Modality,
        ids: Sequence[str],
        candidates: np.ndarray,
        seen: np.ndarray,
        count: int,
    ) -> list[list[Hit]]:
        """So many pairs for each row, best first, by a candidate [n, d] for its missing half too.

        `seen`: pairs of each row that are not to be retrieved again, int64 [n, w], -1 for none.
        """
        ...

    def pairs(
        self, rows: Sequence[int], with_images: bool, longest_side: int | None = None
    ) -> dict[int, Pair]:
        """Pairs by row; see `StandingKnowledge.pairs`."""
        ...

    def selector_of(self, row_id: str) -> Selector:
        """What chooses among a row's candidates."""
        ...
