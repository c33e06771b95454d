from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from kb.retrieval.ranking import foremost, ranked


def test_scores_that_are_level_go_by_id_and_what_is_absent_comes_last() -> None:
    generator = np.random.default_rng(2)
    ids = [f"p{number}" for number in generator.permutation(90)]
    rows = np.stack([generator.permutation(90)[:20] for _ in range(50)])
    score = np.round(generator.random(rows.shape, dtype=np.float32), 1)
    absent = generator.random(rows.shape) < 0.1
    rows[absent], score[absent] = -1, -np.inf
    # Products of equal rows differ in their last bits.
    score += generator.uniform(0, 2e-7, score.shape).astype(np.float32)
    found = ranked(score, rows, pa.array(ids))
    for of_query, scores, order in zip(rows, score, found, strict=True):
        there = [c for c in range(20) if of_query[c] >= 0]
        expected = sorted(there, key=lambda c: (-np.round(scores[c], 1), ids[of_query[c]]))
        assert list(order[: len(there)]) == expected
        assert (of_query[order[len(there) :]] == -1).all()


def test_scores_that_differ_in_the_last_bit_are_level_wherever_they_lie() -> None:
    scores = np.random.default_rng(0).uniform(0.1, 1, (5000, 1)).astype(np.float32)
    pairs = np.concatenate([scores, np.nextafter(scores, np.float32(2))], axis=1)
    rows = np.tile([0, 1], (5000, 1))
    ids = pa.array(["a", "b"])
    np.testing.assert_array_equal(ranked(pairs, rows, ids), np.tile([0, 1], (5000, 1)))
    np.testing.assert_array_equal(ranked(pairs, rows, ids[::-1]), np.tile([1, 0], (5000, 1)))


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_the_foremost_are_the_first_of_all_also_where_many_are_level(levels: int) -> None:
    generator = np.random.default_rng(3)
    ids = pa.array([f"p{number:03d}" for number in generator.permutation(300)])
    rows = np.stack([generator.permutation(300)[:120] for _ in range(60)])
    score = np.round(generator.random(rows.shape, dtype=np.float32), levels)
    absent = generator.random(rows.shape) < 0.1
    absent[0, 2:] = True
    rows[absent], score[absent] = -1, -np.inf
    score += generator.uniform(0, 2e-7, score.shape).astype(np.float32)
    for m in (1, 3, 7):
        expected = ranked(score, rows, ids)[:, :m]
        found = foremost(score, rows, ids, m)
        there = np.take_along_axis(rows, expected, axis=1) >= 0
        np.testing.assert_array_equal(found[there], expected[there])
        assert (np.take_along_axis(rows, found, axis=1)[~there] == -1).all()
