"""Pairs that a query must not retrieve, for they tell of the row that it stands for: they share a half with
it, or are near-duplicates that the caller names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kb.embeddings import Modality
from kb.groups import COMMON

# Fetched beyond k at most, to leave them out: of a picture with more texts some may be found.
MOST_LEFT_OUT = 1024


@dataclass(frozen=True)
class Excluded:
    """What queries must not find.

    Attributes
    ----------
    held : mapping of modality to uint64 [n]
        Digests of the halves of all pairs.
    own : mapping of modality to uint64 [q]
        Digests of the halves of what each query stands for.
    counts : mapping of modality to bool [q]
        Where a shared half of this modality leaves a pair out.
    most : int
        Pairs that a query leaves out at most.
    named : int64 [q, w], optional
        Rows to leave out besides, -1 for none.
    """

    held: Mapping[Modality, np.ndarray]
    own: Mapping[Modality, np.ndarray]
    counts: Mapping[Modality, np.ndarray]
    most: int
    named: np.ndarray | None = None

    @classmethod
    def given(
        cls,
        held: Mapping[Modality, np.ndarray] | None,
        without: Mapping[Modality, np.ndarray] | Excluded | None,
    ) -> Excluded | None:
        """What a search leaves out, by how it was said; see `among`."""
        if without is None or isinstance(without, Excluded):
            return without
        return cls.among(held or {}, without)

    @classmethod
    def among(
        cls, held: Mapping[Modality, np.ndarray], own: Mapping[Modality, np.ndarray]
    ) -> Excluded:
        """Those among all pairs that share a picture with a query, or a text that is not common.

        Raises
        ------
        ValueError
            There are no digests of the pairs.
        """
        if not held:
            raise ValueError("pairs to leave out are told by digests, which the retriever lacks")
        counts, most = {}, 0
        for modality, digests in own.items():
            shared = _occurrences(held[modality], digests)
            counts[modality] = (shared > 0) & ((modality == "image") | (shared <= COMMON))
            most += int(shared[counts[modality]].max(initial=0))
        return cls(held, own, counts, min(most, MOST_LEFT_OUT))

    @classmethod
    def nothing(cls) -> Excluded:
        """Nothing yet; see `and_rows`."""
        return cls({}, {}, {}, 0)

    def and_rows(self, named: np.ndarray) -> Excluded:
        """These, and for each query some rows more, int64 [q, w] with -1 for none."""
        most = int((named >= 0).sum(axis=1).max(initial=0))
        return replace(self, named=named, most=min(self.most + most, MOST_LEFT_OUT))

    def of(self, queries: Any) -> Excluded:
        """The part of some queries, by a slice or row numbers."""
        own = {m: digests[queries] for m, digests in self.own.items()}
        counts = {m: counted[queries] for m, counted in self.counts.items()}
        named = None if self.named is None else self.named[queries]
        return Excluded(self.held, own, counts, self.most, named)

    def found(self, rows: np.ndarray) -> np.ndarray:
        """Which of the rows found, int64 [q, k] with -1 for none, must go: bool [q, k]."""
        left_out = np.zeros(rows.shape, dtype=bool)
        for modality, digests in self.own.items():
            same = self.held[modality][rows.clip(0)] == digests[:, None]
            left_out |= same & self.counts[modality][:, None]
        if self.named is not None:
            for place, own_rows in enumerate(self.named):
                left_out[place] |= np.isin(rows[place], own_rows[own_rows >= 0])
        return left_out


def _occurrences(held: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """How often each digest is held, int64 [q]."""
    distinct, inverse = np.unique(digests, return_inverse=True)
    place = np.searchsorted(distinct, held).clip(max=len(distinct) - 1)
    return np.bincount(place[distinct[place] == held], minlength=len(distinct))[inverse]
