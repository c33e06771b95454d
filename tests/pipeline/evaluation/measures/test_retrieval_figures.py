"""Retrieval measured by itself, on pairs whose best answer is known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from kb.index import EmbeddingIndex
from kb.index.kinds import IndexSettings
from kb.retrieval import FusionRetriever, RetrievalSettings
from pipeline.check.intervals import interval
from pipeline.evaluation.measures.retrieval import gain, measure_retrieval

COUNT, WIDTH = 60, 16


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def results() -> list[dict]:
    """Texts say precisely what images say vaguely; rows are near-copies of pairs."""
    generator = np.random.default_rng(0)
    meaning = generator.normal(size=(COUNT, WIDTH))
    halves = {
        "text": unit(meaning + 0.05 * generator.normal(size=meaning.shape)),
        "image": unit(meaning + 1.2 * generator.normal(size=meaning.shape)),
    }
    indexes = {m: EmbeddingIndex.build(rows, IndexSettings()) for m, rows in halves.items()}
    retriever = FusionRetriever(
        halves,
        indexes,
        [f"pair {number}" for number in range(COUNT)],
        None,
        RetrievalSettings(k=10, alpha=0.5),
    )
    near = unit(meaning + 0.1 * generator.normal(size=meaning.shape))
    return measure_retrieval(
        retriever,
        {"text": near, "image": near},
        {"text": [f"row {n}" for n in range(COUNT)], "image": []},
        {"text": halves["image"], "image": halves["text"]},
        halves,
    )


def test_every_mode_is_measured_for_the_halves_that_rows_have(results: list[dict]) -> None:
    assert [(r["observed"], r["mode"]) for r in results] == [
        ("text", "cross"),
        ("text", "intra"),
        ("text", "fusion"),
    ]
    for result in results:
        assert len(result["values"]) == COUNT
        assert 0 <= result["R@1"] <= result["R@5"] <= result["R@10"] <= 1


def test_the_mode_that_looks_where_meaning_is_plain_wins(results: list[dict]) -> None:
    by_mode = {r["mode"]: r for r in results}
    assert by_mode["intra"]["R@1"] > 0.95
    assert by_mode["intra"]["values"].mean() > by_mode["cross"]["values"].mean()
    assert interval(gain(results, "text", "intra", "cross")).low > 0
