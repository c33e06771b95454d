from __future__ import annotations

import numpy as np
import pytest

from kb.embeddings import normalise
from kb.filtering.likeness import contrast, likeness


def unit(count: int, seed: int) -> np.ndarray:
    return normalise(np.random.default_rng(seed).standard_normal((count, 8)))


def by_loops(rows: np.ndarray, side: np.ndarray, k: int, own: bool) -> list[float]:
    """The mean of the k largest cosines, one row at a time; a row's own is left out once."""
    out = []
    for u in rows:
        cosines = sorted((float(u @ v) for v in side), reverse=True)
        if own and any(np.array_equal(u, v) for v in side):
            cosines = cosines[1:]
        out.append(float(np.mean(cosines[:k])))
    return out


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("own", [False, True])
def test_likeness_is_its_formula(k: int, own: bool) -> None:
    rows = unit(40, 0)
    # Half of the rows are in the sample of their side, half are not.
    side = np.concatenate([rows[:20], unit(30, 1)])
    found = likeness(rows, side, k, own=own)
    np.testing.assert_allclose(found, by_loops(rows, side, k, own), atol=1e-5)


def test_a_row_is_compared_with_its_copies_but_not_with_itself() -> None:
    rows = unit(10, 2)
    side = np.concatenate([rows, rows[:1]])
    found = likeness(rows, side, 1, own=True)
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert (found[1:] < 0.99).all()


def test_k_is_clamped_to_the_side() -> None:
    rows, side = unit(6, 3), unit(4, 4)
    expected = (rows @ side.T).mean(axis=1)
    np.testing.assert_allclose(likeness(rows, side, 10), expected, atol=1e-5)
    # A side that is one row alone: nothing else to compare it with.
    np.testing.assert_allclose(likeness(rows[:1], rows[:1], 10, own=True), [1], atol=1e-5)


def test_contrast_takes_half_of_the_likeness_to_the_own_side_off() -> None:
    rows, other = unit(30, 5), unit(25, 6)
    expected = np.array(by_loops(rows, other, 4, False))
    expected -= np.array(by_loops(rows, rows, 4, True)) / 2
    np.testing.assert_allclose(contrast(rows, other, rows, 4), expected, atol=1e-5)
