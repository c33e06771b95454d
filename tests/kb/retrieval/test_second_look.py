"""What is retrieved once more, by a candidate for the missing half."""

from __future__ import annotations

import numpy as np
import pytest

from kb.embeddings import Modality, normalise, opposite
from kb.retrieval import RetrievalSettings
from kb.retrieval.excluded import Excluded
from kb.retrieval.second_look import search_again
from tests.kb.retrieval.retrievers import fusion_by_loops, make

IDS = ["new"] * 12
NONE = np.full((12, 1), -1)


@pytest.mark.parametrize("mode", ["fusion", "intra"])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_the_candidate_stands_for_the_pseudo_embedding(mode: str, modality: Modality) -> None:
    settings = RetrievalSettings(mode=mode, k=8, alpha=0.3)
    world, pairs, retriever = make(settings, dimensions=(48, 20), shared_space=False)
    queries, candidates = (world.draw(12)[m] for m in (modality, opposite(modality)))
    without = Excluded.nothing().and_rows(NONE)
    found = search_again(retriever, queries, modality, candidates, IDS, without, 3)
    for query, candidate, rows in zip(queries, candidates, found.rows, strict=True):
        expected = fusion_by_loops(query, candidate, pairs, modality, 8, 0.3)
        assert rows.tolist() == [row for row, _ in expected[:3]]


def test_what_was_shown_is_not_found_again_and_others_take_its_place() -> None:
    world, _, retriever = make(RetrievalSettings(k=8, alpha=0.3))
    queries, candidates = (world.draw(12)[m] for m in ("image", "text"))
    before = search_again(
        retriever, queries, "image", candidates, IDS, Excluded.nothing().and_rows(NONE), 2
    )
    without = Excluded.nothing().and_rows(before.rows)
    found = search_again(retriever, queries, "image", candidates, IDS, without, 3)
    assert (found.rows >= 0).all()
    for seen, rows in zip(before.rows, found.rows, strict=True):
        assert not set(seen.tolist()) & set(rows.tolist())


@pytest.mark.parametrize(("mode", "shared"), [("pseudo", False), ("cross", False), ("cross", True)])
def test_where_the_other_modality_is_searched_it_is_by_both_together(
    mode: str, shared: bool
) -> None:
    dimensions = (48, 48) if shared else (48, 20)
    settings = RetrievalSettings(mode=mode, k=10)
    world, pairs, retriever = make(settings, dimensions=dimensions, shared_space=shared)
    queries, candidates = (world.draw(12)[m] for m in ("image", "text"))
    own = queries if shared else retriever.mapping.map(queries, source="image")
    without = Excluded.nothing().and_rows(NONE)
    found = search_again(retriever, queries, "image", candidates, IDS, without, 4)
    expected = np.argsort(-(normalise(own + candidates) @ pairs["text"].T), axis=1)[:, :4]
    np.testing.assert_array_equal(found.rows, expected)
