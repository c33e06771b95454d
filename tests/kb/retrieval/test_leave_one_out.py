"""Choosing k and alpha on pairs that are left out of what they retrieve from."""

from __future__ import annotations

import numpy as np
import pytest

from kb.retrieval import RetrievalSettings
from kb.retrieval.leave_one_out import select_retrieval
from tests.kb.retrieval.retrievers import fusion_by_loops, make


def test_auto_picks_the_best_k_and_alpha_of_the_leave_one_out_evidence() -> None:
    _, pairs, retriever = make(RetrievalSettings(), count=400)
    ids = [f"p{number:04d}" for number in range(400)]
    pseudo = retriever.mapping.out_of_fold_
    settings, evidence = select_retrieval(retriever, pairs, ids, pseudo)
    assert len(evidence) == 20
    best = max(evidence, key=lambda entry: entry["mean"])
    assert (settings.k, settings.alpha) == (best["k"], best["alpha"])
    # One entry again, by loops.
    entry = next(e for e in evidence if e["k"] == 10 and e["alpha"] == 0.25)
    total = 0.0
    for row in range(400):
        query, guess = pairs["image"][row], pseudo["image"][row]
        best_row = fusion_by_loops(query, guess, pairs, "image", 10, 0.25, row)[0][0]
        total += float(pairs["text"][best_row] @ pairs["text"][row])
    assert entry["image"] == pytest.approx(total / 400, abs=1e-4)


def test_given_k_and_alpha_are_left_alone() -> None:
    _, pairs, retriever = make(RetrievalSettings(k=7, alpha=0.9))
    ids = [f"p{number:04d}" for number in range(300)]
    assert select_retrieval(retriever, pairs, ids) == (RetrievalSettings(k=7, alpha=0.9), [])


def test_pairs_of_one_picture_leave_nothing_to_measure_by() -> None:
    _, pairs, retriever = make(RetrievalSettings(), count=40)
    ids = [f"p{number:04d}" for number in range(40)]
    retriever.digests = {"image": np.full(40, 7, np.uint64), "text": np.arange(40, dtype=np.uint64)}
    chosen = select_retrieval(retriever, pairs, ids, without=retriever.digests)
    assert chosen == (RetrievalSettings(k=10, alpha=0.5), [])
