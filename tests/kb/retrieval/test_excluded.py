"""Pairs that a query leaves out: by a half that they share, and by name."""

from __future__ import annotations

import numpy as np

from kb.retrieval.excluded import Excluded


def test_rows_that_are_named_are_left_out_of_their_own_query_alone() -> None:
    digests = {"image": np.arange(6, dtype=np.uint64)}
    asked = Excluded.among(digests, {"image": np.array([0, 1], np.uint64)})
    named = asked.and_rows(np.array([[2, -1], [3, 4]]))
    found = named.found(np.array([[0, 1, 2, 3, 4]] * 2))
    assert found.tolist() == [[True, False, True, False, False], [False, True, False, True, True]]
    assert named.most == asked.most + 2
    assert named.of(slice(1, 2)).found(np.array([[2, 3]])).tolist() == [[False, True]]
