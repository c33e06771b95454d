"""Ranks against a twin."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.results.ranked import ranks, recall


def unit(shape: tuple[int, int], seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_ranks_count_what_is_nearer_than_the_own_key() -> None:
    queries, keys = unit((30, 4), 0), unit((30, 4), 1)
    for row, rank in enumerate(ranks(queries, keys)):
        order = sorted(range(30), key=lambda key: -float(queries[row] @ keys[key]))
        assert order.index(row) == rank


def test_equal_keys_do_not_all_come_first() -> None:
    same = np.tile(unit((1, 4), 0), (5, 1))
    assert ranks(same, same).tolist() == [0, 1, 2, 3, 4]
    assert recall(ranks(same, same), 1) == pytest.approx(0.2)
