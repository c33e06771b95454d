"""Examples that differ, against their formula by loops."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from kb.embeddings import normalise
from kb.retrieval import FusionRetriever, RetrievalSettings
from kb.retrieval.diversity import differing
from kb.retrieval.leave_one_out import LeaveOneOut, Point
from tests.kb.retrieval.retrievers import make


def by_loops(
    base: np.ndarray, rows: np.ndarray, score: np.ndarray, m: int, weight: float
) -> list[int]:
    left = [column for column in range(len(rows)) if rows[column] >= 0]
    chosen: list[int] = []
    while left and len(chosen) < m:

        def worth(column: int) -> float:
            own = base[rows[column]]
            repeated = max((float(own @ base[rows[other]]) for other in chosen), default=0)
            return float(score[column]) - weight * repeated

        chosen.append(max(left, key=worth))
        left.remove(chosen[-1])
    return chosen


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_each_example_is_worth_its_score_less_what_it_repeats(weight: float) -> None:
    generator = np.random.default_rng(0)
    base = normalise(generator.normal(size=(60, 6)))
    rows = np.stack([generator.permutation(60)[:30] for _ in range(40)])
    score = generator.uniform(0.3, 0.6, size=rows.shape).astype(np.float32)
    rows[3, 2:] = -1
    score[rows < 0] = -np.inf
    ids = pa.array([f"p{number:02d}" for number in range(60)])
    found = differing(base, rows, score, ids, 4, weight)
    assert found.shape == (40, 4)
    for query in range(40):
        expected = by_loops(base, rows[query], score[query], 4, weight)
        assert found[query].tolist()[: len(expected)] == expected
        assert len(set(found[query].tolist())) == 4


def test_examples_that_differ_are_less_alike_and_the_first_stays() -> None:
    world, pairs, retriever = make(RetrievalSettings(), count=300)
    queries = world.draw(50)["image"]

    def found(diversity: float) -> np.ndarray:
        settings = RetrievalSettings(
            mode="fusion", k=50, alpha=0.5, examples=3, diversity=diversity
        )
        finder = FusionRetriever(
            pairs, retriever.indexes, retriever.ids, retriever.mapping, settings
        )
        return finder.search(queries, "image").rows

    def alike(rows: np.ndarray) -> float:
        texts = pairs["text"][rows]
        return float((texts @ texts.transpose(0, 2, 1)).mean())

    plain, differ = found(0), found(1.0)
    np.testing.assert_array_equal(plain[:, 0], differ[:, 0])
    assert alike(differ) < alike(plain) - 0.05


def test_what_is_measured_is_the_first_of_the_examples_that_will_be_retrieved() -> None:
    settings = RetrievalSettings(mode="fusion", k=50, alpha=0.5, examples=3, diversity=0.5)
    _, pairs, retriever = make(settings, count=200)
    guess = retriever.mapping.map(pairs["image"], source="image")
    ids = retriever.ids.to_pylist()
    trials = LeaveOneOut(retriever, pairs, ids)
    point = Point("fusion", 50, 0.5)
    found = trials.quality("image", [point], guess)[point]
    rows = retriever.search(pairs["image"], "image", ids).rows
    assert rows.shape == (200, 3)
    truth = np.einsum("nd,nd->n", pairs["text"][rows[:, 0]], pairs["text"])
    np.testing.assert_allclose(found, truth, atol=1e-5)
