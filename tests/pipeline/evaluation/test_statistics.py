"""Ranks against a twin, intervals against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.statistics import interval, paired, ranks, recall


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


def test_the_interval_is_students() -> None:
    values = [0.31, 0.35, 0.33, 0.38, 0.3]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    found = interval(values)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_pairing_takes_out_what_seeds_share() -> None:
    luck = np.array([0.0, 0.2, -0.1, 0.3, 0.1])
    gain = paired(0.5 + luck + [0.01, -0.01, 0, 0.01, 0], 0.4 + luck)
    assert gain.mean == pytest.approx(0.102)
    assert gain.half < 0.02 < interval(0.5 + luck).half
    with pytest.raises(ValueError, match="equally many"):
        paired([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="at least 2"):
        interval([1.0])
