from __future__ import annotations

import numpy as np

from kb.embeddings import normalise
from kb.index.neighbours import exact_search
from tests.kb.worlds import World


def brute_force(queries: np.ndarray, base: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries.astype(np.float64) @ base.T.astype(np.float64)), axis=1)[:, :k]


def test_exact_search_in_chunks_is_exact_search() -> None:
    world = World(1)
    base, queries = world.draw(500)["image"], world.draw(20)["image"]
    _, rows = exact_search(queries, base.astype(np.float16), 10, chunk=77)
    expected = brute_force(queries, normalise(base.astype(np.float16)), 10)
    np.testing.assert_array_equal(rows, expected)
