"""A learned fusion is taken where it gains, left off where it does not, and kept with the base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kb.embeddings import MODALITIES, Modality, normalise
from kb.knowledge_base import KnowledgeBase
from kb.mapping import MappingSettings
from kb.retrieval import RetrievalSettings
from kb.retrieval.learned import FUSIONS, Found
from kb.retrieval.learning import learn, load_fusions, save_fusions
from kb.retrieval.leave_one_out import LeaveOneOut
from tests.kb.retrieval.retrievers import make
from tests.kb.worlds import World, as_pairs, quick

GATED = RetrievalSettings(mode="fusion", k=20, alpha=0.5, consensus=0, fusion="gate")


def uneven(truth: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Guesses of which every other is right, and every other about nothing and faint."""
    noise = normalise(generator.normal(size=truth.shape))
    right = np.arange(len(truth))[:, None] % 2 == 0
    return np.where(right, normalise(truth + 0.3 * noise), noise).astype(np.float32)


def test_a_gate_is_taken_where_guesses_are_right_for_some_queries_alone() -> None:
    _, pairs, retriever = make(GATED, count=400)
    generator = np.random.default_rng(0)
    pseudo: dict[Modality, np.ndarray | None] = {
        "image": uneven(pairs["text"], generator),
        "text": None,
    }
    trials = LeaveOneOut(retriever, pairs, retriever.ids.to_pylist())
    fusions, evidence = learn(trials, pseudo, GATED, np.arange(400))
    assert set(fusions) == set(evidence) == {"image"}
    assert evidence["image"]["taken"]
    assert evidence["image"]["gain"] > 3 * evidence["image"]["standard_error"]


def test_where_nothing_can_be_learned_the_score_stays() -> None:
    _, pairs, retriever = make(GATED, count=200)
    generator = np.random.default_rng(1)
    # The truth lies in no direction more than in another, whatever is retrieved.
    pairs = pairs | {"text": normalise(generator.normal(size=pairs["text"].shape))}
    trials = LeaveOneOut(retriever, pairs, retriever.ids.to_pylist())
    pseudo = {"image": retriever.mapping.out_of_fold_["image"], "text": None}
    for name in FUSIONS:
        settings = GATED.model_copy(update={"fusion": name})
        fusions, evidence = learn(trials, pseudo, settings, np.arange(200))
        for modality, found in evidence.items():
            assert found["gain"] < 3 * found["standard_error"]
            assert (modality in fusions) == found["taken"]
    assert learn(trials, pseudo, GATED.model_copy(update={"fusion": "score"}), np.arange(200)) == (
        {},
        {},
    )
    few = learn(trials, pseudo, GATED, np.zeros(200, np.int64))
    assert few == ({}, {})


@pytest.mark.parametrize("name", FUSIONS)
def test_a_saved_fusion_scores_alike(name: str, tmp_path: Path) -> None:
    _, pairs, retriever = make(GATED, count=100)
    trials = LeaveOneOut(retriever, pairs, retriever.ids.to_pylist())
    found, truth = trials.candidates("image", 20, retriever.mapping.out_of_fold_["image"])
    fusion = FUSIONS[name]().fit(found, truth, 0.5)
    save_fusions(tmp_path / "fusion", name, {"image": fusion})
    loaded = load_fusions(tmp_path / "fusion")
    assert set(loaded) == {"image"}
    np.testing.assert_allclose(loaded["image"].score(found), fusion.score(found), atol=1e-6)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_knowledge_base_retrieves_by_the_fusion_that_it_learned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether it gains is chance here: that it is used is not.
    monkeypatch.setattr("kb.retrieval.learning.FEWEST", 20)
    world = World(2)
    internal = as_pairs(world.draw(150), "own")
    settings = GATED.model_copy(update={"fusion": name})
    recipe = quick(mapping=MappingSettings(method="ridge"), retrieval=settings)
    kb = KnowledgeBase.build(tmp_path / "kb", internal, [], recipe)
    told = kb.manifest["retrieval"]["fusion"]
    assert set(told) == set(MODALITIES)
    assert {m for m in MODALITIES if told[m]["taken"]} == set(kb.retriever.fusions)
    queries = world.draw(20)["image"]
    kb.retriever.fusions = {}
    plain = kb.retriever.search(queries, "image", m=20)
    guess = kb.pseudo(queries, "image")
    held = kb.embeddings["image"], kb.embeddings["text"]
    found = Found(queries, guess, plain.rows, plain.intra, plain.cross, *held)
    truth = np.random.default_rng(0).uniform(size=plain.rows.shape)
    fusion = FUSIONS[name]().fit(found, truth, 0.5)
    kb.retriever.fusions = {"image": fusion}
    fused = kb.retriever.search(queries, "image", m=20)
    expected = np.sort(fusion.score(found), axis=1)[:, ::-1]
    np.testing.assert_allclose(fused.score, expected, atol=1e-5)
    assert (fused.rows[:, 0] == plain.rows[np.arange(20), fusion.score(found).argmax(1)]).all()
