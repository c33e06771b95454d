"""Choosing how to retrieve on pairs that are left out of what they retrieve from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kb.embeddings import MODALITIES
from kb.retrieval import FusionRetriever, RetrievalSettings
from kb.retrieval.leave_one_out import LeaveOneOut, Point, judge_examples, select_retrieval
from tests.kb.retrieval.retrievers import fusion_by_loops, make


def trials_of(retriever: FusionRetriever, pairs: Any, **kwargs: Any) -> LeaveOneOut:
    return LeaveOneOut(retriever, pairs, retriever.ids.to_pylist(), **kwargs)


def test_auto_picks_the_best_of_the_leave_one_out_evidence_if_it_gains_beyond_its_error() -> None:
    _, pairs, retriever = make(RetrievalSettings(mode="fusion", consensus=0), count=400)
    pseudo = retriever.mapping.out_of_fold_
    settings, evidence = select_retrieval(trials_of(retriever, pairs), pseudo)
    assert len(evidence) == 35
    best = max(evidence, key=lambda entry: entry["mean"])
    assert (evidence[0]["k"], evidence[0]["alpha"], evidence[0]["gain"]) == (10, 0.5, 0)
    chosen = best if best["gain"] > best["standard_error"] else evidence[0]
    assert (settings.k, settings.alpha) == (chosen["k"], chosen["alpha"])
    # One entry again, by loops.
    entry = next(e for e in evidence if e["k"] == 10 and e["alpha"] == 0.25)
    total = 0.0
    for row in range(400):
        query, guess = pairs["image"][row], pseudo["image"][row]
        best_row = fusion_by_loops(query, guess, pairs, "image", 10, 0.25, row)[0][0]
        total += float(pairs["text"][best_row] @ pairs["text"][row])
    assert entry["image"] == pytest.approx(total / 400, abs=1e-4)


def test_a_gain_within_its_error_leaves_the_papers_values() -> None:
    _, pairs, retriever = make(RetrievalSettings(), count=300)
    noise = np.random.default_rng(0)
    shuffled = {m: noise.permutation(retriever.mapping.out_of_fold_[m]) for m in MODALITIES}
    pairs = {m: noise.permutation(pairs[m]) for m in MODALITIES}
    settings, evidence = select_retrieval(trials_of(retriever, pairs), shuffled)
    best = max(evidence, key=lambda entry: entry["mean"])
    assert best["gain"] <= 3 * best["standard_error"]
    if best["gain"] <= best["standard_error"]:
        assert settings == RetrievalSettings(mode="fusion", k=10, alpha=0.5, consensus=0)


def test_the_way_through_the_pseudo_embedding_alone_is_tried_as_the_retriever_goes_it() -> None:
    _, pairs, retriever = make(RetrievalSettings(), count=200)
    pseudo = retriever.mapping.out_of_fold_
    trials = trials_of(retriever, pairs)
    for modality, other in (("image", "text"), ("text", "image")):
        point = Point("pseudo", 10, np.nan)
        found = trials.quality(modality, [point], pseudo[modality])[point]
        similarity = pseudo[modality] @ pairs[other].T
        np.fill_diagonal(similarity, -2)
        expected = np.einsum("nd,nd->n", pairs[other][similarity.argmax(axis=1)], pairs[other])
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_way_finds_what_the_retriever_finds_that_is_set_so() -> None:
    _, pairs, retriever = make(RetrievalSettings(), count=200)
    mapping = retriever.mapping
    trials = trials_of(retriever, pairs)
    points = [
        Point("fusion", 20, 0.25),
        Point("fusion", 100, 0.5, 0.5),
        Point("pseudo", 20, np.nan, 0.25),
        Point("cross", 10, np.nan),
    ]
    guess = mapping.map(pairs["image"], source="image")
    found = trials.quality("image", points, guess)
    for point in points:
        alpha = 0.5 if np.isnan(point.alpha) else point.alpha
        settings = RetrievalSettings(
            mode=point.mode, k=point.k, alpha=alpha, consensus=point.consensus
        )
        finder = FusionRetriever(pairs, retriever.indexes, retriever.ids, mapping, settings)
        rows = finder.search(pairs["image"], "image", retriever.ids.to_pylist()).rows[:, 0]
        truth = np.einsum("nd,nd->n", pairs["text"][rows], pairs["text"])
        np.testing.assert_allclose(found[point], truth, atol=1e-5)


def test_mappings_are_judged_by_the_examples_that_are_found_with_them() -> None:
    _, pairs, retriever = make(RetrievalSettings(), count=300)
    good = retriever.mapping.out_of_fold_["image"]
    bad = np.random.default_rng(1).permutation(good)
    judged = judge_examples(trials_of(retriever, pairs), "image", {"good": good, "bad": bad})
    assert judged["good"].shape == (300,)
    assert judged["good"].mean() > judged["bad"].mean()


def test_given_settings_are_left_alone() -> None:
    asked = RetrievalSettings(mode="fusion", k=7, alpha=0.9, consensus=0.1, external_penalty=0.2)
    _, pairs, retriever = make(asked)
    chosen = select_retrieval(trials_of(retriever, pairs), retriever.mapping.out_of_fold_)
    assert chosen == (asked, [])


def test_pairs_of_one_picture_leave_nothing_to_measure_by() -> None:
    _, pairs, retriever = make(RetrievalSettings(), count=40)
    retriever.digests = {"image": np.full(40, 7, np.uint64), "text": np.arange(40, dtype=np.uint64)}
    trials = trials_of(retriever, pairs, without=retriever.digests)
    chosen = select_retrieval(trials, retriever.mapping.out_of_fold_)
    assert chosen == (RetrievalSettings().decided(), [])
