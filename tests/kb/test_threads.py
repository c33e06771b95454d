"""Few pairs are computed in one thread, and others as before, whatever comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from kb import threads
from kb.knowledge_base import KnowledgeBase
from kb.mapping import CrossModalMapping
from kb.pairs import Pairs
from tests.kb.worlds import QUICK


def seen() -> tuple[int, set[int]]:
    return torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info()}


@pytest.fixture(autouse=True)
def three() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("few", "expected"), [(10_000, 1), (10, 3)])
def test_a_build_of_few_pairs_computes_in_one_thread(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sides: tuple[Pairs, list[Pairs]],
    few: int,
    expected: int,
) -> None:
    found = []
    fit = CrossModalMapping.compare

    def watched(self: CrossModalMapping, *arguments: object) -> CrossModalMapping:
        found.append(seen())
        return fit(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CrossModalMapping, "compare", watched)
    monkeypatch.setattr(threads, "FEW_PAIRS", few)
    before = seen()
    KnowledgeBase.build(tmp_path / "kb", *sides, QUICK)
    (number, pools), *_ = found
    assert number == expected
    assert pools == ({1} if expected == 1 else before[1])
    assert seen() == before


def test_the_number_of_threads_is_as_it_was_after_an_error() -> None:
    before = seen()
    with pytest.raises(ValueError, match="no"), threads.threads_for(5):
        assert torch.get_num_threads() == 1
        raise ValueError("no")
    assert seen() == before
