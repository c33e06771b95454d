from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kb.index.stored_rows import inner_products


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_many_rows_of_a_file_are_compared_as_by_loops(dtype: type, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    np.save(tmp_path / "rows.npy", generator.standard_normal((400, 24)).astype(dtype))
    base = np.load(tmp_path / "rows.npy", mmap_mode="r")
    queries = generator.standard_normal((900, 24), dtype=np.float32)
    rows = generator.integers(-1, 400, (900, 7))
    products = inner_products(queries, base, rows)
    assert products.dtype == np.float32
    for query, of_query, found in zip(queries, rows, products, strict=True):
        expected = [query @ base[r].astype(np.float32) if r >= 0 else -np.inf for r in of_query]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert inner_products(queries[:0], base, rows[:0]).shape == (0, 7)
    assert inner_products(queries, base, rows[:, :0]).shape == (900, 0)
