from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from kb.index.stored_rows import ScatteredRows, inner_products, scattered


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


def test_a_large_file_is_compared_by_reading_single_rows_alike(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    np.save(tmp_path / "rows.npy", generator.standard_normal((30_000, 24)).astype(np.float16))
    base = np.load(tmp_path / "rows.npy", mmap_mode="r")
    read = scattered(base)
    assert isinstance(read, ScatteredRows)
    queries = generator.standard_normal((300, 24), dtype=np.float32)
    rows = generator.integers(-1, 30_000, (300, 9))
    found, expected = (inner_products(queries, one, rows) for one in (read, base))
    np.testing.assert_array_equal(found, expected)
    os.truncate(tmp_path / "rows.npy", 1 << 20)
    with pytest.raises(OSError, match="row 29999 of 30000 is cut short"):
        inner_products(queries[:1], read, np.array([[29_999]]))


def test_a_small_file_and_a_part_of_a_large_one_are_read_as_they_are_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((30_000, 24), np.float16))
    base = np.load(tmp_path / "rows.npy", mmap_mode="r")
    part = base[10:]
    assert scattered(part) is part
    np.save(tmp_path / "few.npy", np.zeros((400, 24), np.float16))
    few = np.load(tmp_path / "few.npy", mmap_mode="r")
    assert scattered(few) is few
