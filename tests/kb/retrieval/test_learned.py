"""Learned fusions: they start at the score, and learn where one half tells more than the other."""

from __future__ import annotations

import numpy as np
import pytest

from kb.embeddings import normalise
from kb.retrieval.learned import FUSIONS, Found, Gate


def world(queries: int, seed: int, k: int = 20) -> tuple[Found, np.ndarray, np.ndarray]:
    """Queries for half of which only intra tells the truth, for half only cross, by how high it is."""
    generator = np.random.default_rng(seed)
    observed = normalise(np.random.default_rng(1).normal(size=(200, 8)))
    sought = normalise(np.random.default_rng(2).normal(size=(200, 6)))
    rows = np.stack([generator.permutation(200)[:k] for _ in range(queries)])
    truth = generator.uniform(0, 1, rows.shape).astype(np.float32)
    by_intra = generator.random(queries) < 0.5
    noise = generator.uniform(0, 1, (2, *rows.shape)).astype(np.float32)
    own = np.where(by_intra[:, None], truth, noise[0]) + 0.5 * by_intra[:, None]
    other = np.where(by_intra[:, None], noise[1], truth) + 0.5 * ~by_intra[:, None]
    rows[0, 5:] = -1
    asked = normalise(generator.normal(size=(queries, 8)))
    guess = normalise(generator.normal(size=(queries, 6)))
    found = Found(
        asked, guess, rows, own.astype(np.float32), other.astype(np.float32), observed, sought
    )
    return found, truth, by_intra


def chosen(score: np.ndarray, truth: np.ndarray) -> float:
    return float(np.take_along_axis(truth, score.argmax(axis=1)[:, None], axis=1).mean())


def test_a_gate_learns_which_half_to_trust_for_which_query() -> None:
    (found, truth, _), (unseen, expected, by_intra) = world(400, 3), world(300, 4)
    gate = Gate().fit(found, truth, 0.5)
    alpha = gate.alpha(unseen)
    assert alpha[by_intra].mean() > 0.8 > 0.2 > alpha[~by_intra].mean()
    by_score = chosen(0.5 * unseen.intra + 0.5 * unseen.cross, expected)
    assert chosen(gate.score(unseen), expected) > by_score + 0.03


@pytest.mark.parametrize("name", FUSIONS)
def test_candidates_that_are_not_there_are_never_chosen(name: str) -> None:
    found, truth, _ = world(100, 3)
    score = FUSIONS[name]().fit(found, truth, 0.5).score(found)
    assert np.isneginf(score[0, 5:]).all()
    assert np.isfinite(score[1:]).all()


def test_attention_learns_what_goes_with_what_and_leaves_the_score_where_nothing_does() -> None:
    generator = np.random.default_rng(0)
    observed = normalise(generator.normal(size=(100, 8)))
    sought = normalise(generator.normal(size=(100, 6)))
    turn = generator.normal(size=(8, 6))

    def drawn(queries: int, relation: bool) -> tuple[Found, np.ndarray]:
        asked = normalise(generator.normal(size=(queries, 8)))
        rows = np.stack([generator.permutation(100)[:20] for _ in range(queries)])
        zero = np.zeros(rows.shape, np.float32)
        guess = normalise(generator.normal(size=(queries, 6)))
        truth = np.einsum("nd,nkd->nk", normalise(asked @ turn), sought[rows])
        if not relation:
            truth = generator.uniform(-1, 1, rows.shape).astype(np.float32)
        return Found(asked, guess, rows, zero, zero, observed, sought), truth

    for relation in (True, False):
        (found, truth), (unseen, expected) = drawn(600, relation), drawn(300, relation)
        model = FUSIONS["attention"]().fit(found, truth, 0.5)
        gain = chosen(model.score(unseen), expected) - float(expected.mean())
        assert gain > 0.2 if relation else abs(gain) < 0.1
