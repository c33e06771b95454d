"""Intervals against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.check.intervals import Interval, interval, paired, share_of


def test_the_interval_is_students() -> None:
    values = [0.31, 0.35, 0.33, 0.38, 0.3]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    found = interval(values)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_values_of_one_cluster_count_as_one() -> None:
    values = np.random.default_rng(0).normal(size=40)
    names = [f"row {number}" for number in range(40)]
    plain = interval(values)
    assert interval(values, names).half == pytest.approx(plain.half)
    thrice = interval(np.tile(values, 3), names * 3)
    assert thrice.half == pytest.approx(plain.half)
    assert interval(np.tile(values, 3)).half < 0.6 * plain.half
    with pytest.raises(ValueError, match="at least 2 clusters; got 1"):
        interval([1.0, 2.0], ["a", "a"])


def test_clusters_of_many_sizes_give_the_error_of_many_draws() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 5, 200)
    names = np.repeat([f"row {number}" for number in range(200)], sizes)
    halves, means = [], []
    for _ in range(400):
        own = np.repeat(generator.normal(size=200), sizes)
        found = interval(own + 0.5 * generator.normal(size=len(own)), names)
        halves.append(found.half)
        means.append(found.mean)
    assert np.mean(np.abs(means) < halves) == pytest.approx(0.95, abs=0.03)


def test_a_share_is_a_ratio_of_means_and_takes_out_what_ends_have_in_common() -> None:
    luck = np.array([0.0, 0.2, -0.1, 0.3, 0.1])
    found = share_of(0.5 + luck, 0.4 + luck, 0.6 + luck)
    assert (found.mean, found.half) == (pytest.approx(0.5), pytest.approx(0, abs=1e-9))
    with pytest.raises(ValueError, match="no way to have a share of"):
        share_of(luck, luck, luck)


def test_pairing_takes_out_what_seeds_share() -> None:
    luck = np.array([0.0, 0.2, -0.1, 0.3, 0.1])
    gain = paired(0.5 + luck + [0.01, -0.01, 0, 0.01, 0], 0.4 + luck)
    assert gain.mean == pytest.approx(0.102)
    assert gain.half < 0.02 < interval(0.5 + luck).half
    with pytest.raises(ValueError, match="equally many"):
        paired([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="at least 2"):
        interval([1.0])


def test_what_rounds_to_nothing_has_no_sign() -> None:
    assert str(Interval(-0.0002, 0.0004)) == "0.000 ± 0.000"
    assert str(Interval(-0.0006, 0.0004)) == "-0.001 ± 0.000"
