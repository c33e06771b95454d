"""Seeds of candidates."""

from __future__ import annotations

from itertools import product

import torch

from generators.base import derive_seed


def test_seeds_differ_by_run_row_candidate_and_attempt() -> None:
    rows = ("1", "11", "1:1", "", "ünï", "a" * 500)
    seeds = {
        derive_seed(run, row, candidate, attempt)
        for run, row, candidate, attempt in product((0, 1, 11), rows, (0, 1, 11), (1, 2))
    }
    assert len(seeds) == 3 * len(rows) * 3 * 2


def test_seeds_are_what_they_were() -> None:
    """A change here would draw every row of every dataset anew."""
    assert derive_seed(0, "row-1", 0, 1) == 7416515446703195030


def test_seeds_fit_torch_and_lone_surrogates_have_one() -> None:
    for number in range(200):
        seed = derive_seed(7, f"\ud800{number}", 3, 1)
        assert 0 <= seed < 2**63
        torch.Generator().manual_seed(seed)
