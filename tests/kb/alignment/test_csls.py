from __future__ import annotations

import numpy as np
import pytest

from kb.alignment.csls import csls, mutual_neighbours
from kb.embeddings import normalise


def unit(count: int, dimension: int, seed: int) -> np.ndarray:
    return normalise(np.random.default_rng(seed).standard_normal((count, dimension)))


def csls_by_loops(a: np.ndarray, b: np.ndarray, k: int) -> np.ndarray:
    """CSLS written from its formula, one pair at a time, in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    r_a = [np.mean(sorted((float(x @ y) for y in b), reverse=True)[:k]) for x in a]
    r_b = [np.mean(sorted((float(y @ x) for x in a), reverse=True)[:k]) for y in b]
    return np.array(
        [[2 * float(x @ y) - r_a[i] - r_b[j] for j, y in enumerate(b)] for i, x in enumerate(a)]
    )


def mutual_by_loops(scores: np.ndarray) -> np.ndarray:
    pairs = []
    for i in range(len(scores)):
        j = int(np.argmax(scores[i]))
        if int(np.argmax(scores[:, j])) == i:
            pairs.append((i, j))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def muse_dictionary(target: np.ndarray, source: np.ndarray, k: int = 10) -> set[tuple[int, int]]:
    """MUSE's S2T&T2S dictionary with csls_knn_10 and no max_rank: the two directed candidate
    lists under 2 cos - r - r, intersected."""
    similarity = source.astype(np.float64) @ target.astype(np.float64).T
    average_source = np.sort(similarity, axis=1)[:, -k:].mean(axis=1)
    average_target = np.sort(similarity, axis=0)[-k:].mean(axis=0)
    scores = 2 * similarity - average_source[:, None] - average_target[None, :]
    forward = {(s, int(t)) for s, t in enumerate(scores.argmax(axis=1))}
    backward = {(int(s), t) for t, s in enumerate(scores.argmax(axis=0))}
    return forward & backward


def test_csls_is_its_formula() -> None:
    a, b = unit(30, 8, 0), unit(40, 8, 1)
    np.testing.assert_allclose(csls(a, b, 7), csls_by_loops(a, b, 7), atol=1e-5)


def test_k_is_clamped_to_the_size_of_the_other_side() -> None:
    a, b = unit(30, 8, 0), unit(4, 8, 1)
    expected = 2 * a @ b.T - (a @ b.T).mean(axis=1)[:, None]
    expected -= np.sort(a @ b.T, axis=0)[-10:].mean(axis=0)
    np.testing.assert_allclose(csls(a, b, 10), expected, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 7, 64, 100_000])
def test_pairs_are_those_of_the_brute_force_at_any_chunk_size(chunk: int) -> None:
    a, b = unit(120, 10, 2), unit(90, 10, 3)
    expected = mutual_by_loops(csls_by_loops(a, b, 10))
    np.testing.assert_array_equal(mutual_neighbours(a, b, 10, chunk=chunk), expected)
    assert len(expected) > 10


@pytest.mark.parametrize("chunk", [1, 7, 64, 100_000])
def test_equal_rows_pair_alike_at_any_chunk_size(chunk: int) -> None:
    a, b = unit(120, 10, 2), unit(90, 10, 3)
    generator = np.random.default_rng(0)
    a, b = a[generator.integers(0, 120, 300)], b[generator.integers(0, 90, 260)]
    expected = mutual_by_loops(csls_by_loops(a, b, 10))
    np.testing.assert_array_equal(mutual_neighbours(a, b, 10, chunk=chunk), expected)
    assert len(expected) > 10


def test_pairs_are_those_of_muse() -> None:
    source, target = unit(300, 16, 4), unit(250, 16, 5)
    found = {(int(i), int(j)) for i, j in mutual_neighbours(source, target, 10)}
    assert found == muse_dictionary(target, source)


def test_a_hub_takes_no_pair_from_the_true_ones() -> None:
    concepts = unit(60, 12, 6)
    a = normalise(concepts + 0.1 * unit(60, 12, 7))
    # The hub is the mean direction, near to everything.
    hub = normalise(concepts.mean(axis=0, keepdims=True))
    b = np.concatenate([hub, normalise(concepts + 0.1 * unit(60, 12, 8))])
    pairs = mutual_neighbours(a, b, 10)
    assert 0 not in pairs[:, 1]
    assert np.mean(pairs[:, 1] == pairs[:, 0] + 1) > 0.95


def test_rows_without_a_counterpart_stay_mostly_unpaired() -> None:
    shared = unit(80, 16, 9)
    a = np.concatenate([shared, unit(20, 16, 10)])
    b = np.concatenate([normalise(shared + 0.15 * unit(80, 16, 11)), unit(30, 16, 12)])
    pairs = mutual_neighbours(a, b, 10)
    right = (pairs[:, 0] == pairs[:, 1]) & (pairs[:, 0] < 80)
    assert right.sum() >= 78
    assert (~right).sum() <= 8


def test_equal_rows_tie_to_the_lower_one() -> None:
    a = unit(5, 8, 13)
    b = np.concatenate([a[3:4], a, a])
    pairs = mutual_neighbours(np.concatenate([a, a]), b, 3)
    np.testing.assert_array_equal(pairs, [[0, 1], [1, 2], [2, 3], [3, 0], [4, 5]])


def test_an_empty_side_has_no_pairs() -> None:
    assert mutual_neighbours(unit(5, 8, 0), np.empty((0, 8), np.float32)).shape == (0, 2)


def test_sides_of_different_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5, 8\) and \(5, 9\)"):
        mutual_neighbours(unit(5, 8, 0), unit(5, 9, 0))
