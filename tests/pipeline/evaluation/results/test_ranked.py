"""Ranks against a twin."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.results.ranked import Ranked, Ranks, ranks, recall


def unit(shape: tuple[int, int], seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


OWN = np.eye(30, dtype=bool)


def test_ranks_count_what_is_nearer_than_the_own_key() -> None:
    queries, keys = unit((30, 4), 0), unit((30, 4), 1)
    for row, rank in enumerate(ranks(queries @ keys.T, OWN)):
        order = sorted(range(30), key=lambda key: -float(queries[row] @ keys[key]))
        assert order.index(row) == rank


def test_equal_keys_do_not_all_come_first() -> None:
    same = np.tile(unit((1, 4), 0), (5, 1))
    found = ranks(same @ same.T, OWN[:5, :5])
    assert found.tolist() == [0, 1, 2, 3, 4]
    assert recall(found, 1) == pytest.approx(0.2)


def test_of_several_true_keys_the_best_counts_and_the_others_stand_in_no_way() -> None:
    generator = np.random.default_rng(0)
    similarity = generator.normal(size=(20, 50))
    true = generator.random((20, 50)) < 0.1
    true[:, 0] = True
    for row, rank in enumerate(ranks(similarity, true)):
        order = np.argsort(-similarity[row])
        untrue = 0
        for key in order:
            if true[row, key]:
                break
            untrue += 1
        assert rank == untrue


def test_what_is_not_finite_does_not_come_first() -> None:
    similarity = np.ones((3, 3))
    similarity[1, 2] = np.nan
    with pytest.raises(FloatingPointError, match="must be finite"):
        ranks(similarity, OWN[:3, :3])


def test_recall_counts_pictures_one_way_and_captions_the_other() -> None:
    pictures = np.array([0, 0, 0, 1, 2, 2])
    found = Ranks(np.array([[0, 4, 0]]), np.array([[0, 0, 7, 3, 0, 9]]), pictures)
    assert found.hits().mean() == pytest.approx((2 / 3 + 3 / 6) / 2)
    assert found.hits((1, 5, 10)).mean() == pytest.approx(
        np.mean([2 / 3, 3 / 3, 3 / 3, 3 / 6, 4 / 6, 6 / 6])
    )
    both = Ranked()
    both.add(found, ["a", "b", "c"], 0)
    both.add(Ranks(np.array([[0]]), np.array([[5]])), ["d"], 1)
    assert both.hits().mean() == pytest.approx((3 / 4 + 3 / 7) / 2)
    assert both.by_draw()[1] == pytest.approx(0.5)
    assert both.names == ["a", "b", "c", "d"]
