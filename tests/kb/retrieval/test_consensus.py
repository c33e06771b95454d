"""Consensus against its formula by loops."""

from __future__ import annotations

import numpy as np
import pytest

from kb.embeddings import normalise
from kb.retrieval import FusionRetriever, RetrievalSettings
from kb.retrieval.consensus import TEMPERATURE, consensus
from tests.kb.retrieval.retrievers import make


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_consensus_is_the_cosine_to_the_weighted_mean_of_the_others(kind: type) -> None:
    generator = np.random.default_rng(0)
    base = normalise(generator.normal(size=(50, 8)).astype(np.float32)).astype(kind)
    rows = generator.integers(0, 50, size=(40, 6))
    rows[3, 4:] = -1
    score = generator.uniform(0.3, 0.5, size=rows.shape).astype(np.float32)
    found = consensus(base, rows, np.where(rows < 0, -np.inf, score))
    for query in range(40):
        there = [j for j in range(6) if rows[query, j] >= 0]
        best = max(score[query, j] for j in there)
        for j in range(6):
            if j not in there:
                assert found[query, j] == 0
                continue
            mean = sum(
                np.exp((score[query, i] - best) / TEMPERATURE)
                * base[rows[query, i]].astype(np.float64)
                for i in there
                if i != j
            )
            own = base[rows[query, j]].astype(np.float64)
            expected = own @ mean / np.linalg.norm(mean)
            assert found[query, j] == pytest.approx(
                expected, abs=3e-3 if kind is np.float16 else 1e-3
            )


def test_a_candidate_without_a_fellow_has_none() -> None:
    base = np.eye(3, dtype=np.float32)
    assert consensus(
        base, np.array([[2, -1]]), np.array([[0.5, -np.inf]], np.float32)
    ).tolist() == [[0, 0]]
    assert consensus(base, np.empty((0, 4), np.int64), np.empty((0, 4), np.float32)).shape == (0, 4)


def test_with_consensus_the_example_is_one_that_its_fellows_are_like() -> None:
    world, pairs, retriever = make(RetrievalSettings(), count=300)
    queries = world.draw(50)["image"]

    def fellowship(weight: float) -> float:
        settings = RetrievalSettings(mode="fusion", k=20, alpha=0.5, consensus=weight)
        finder = FusionRetriever(
            pairs, retriever.indexes, retriever.ids, retriever.mapping, settings
        )
        found = finder.search(queries, "image", m=20)
        mean = pairs["text"][found.rows].mean(axis=1)
        return float(np.einsum("nd,nd->n", pairs["text"][found.rows[:, 0]], mean).mean())

    assert fellowship(2.0) > fellowship(0.5) > fellowship(0)
