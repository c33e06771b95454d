"""External pairs lose in both stages what leave-one-out says, where their captions or pictures differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kb.embeddings import MODALITIES, Modality, normalise, opposite
from kb.knowledge_base import KnowledgeBase
from kb.pairs import Pairs
from kb.retrieval import RetrievalSettings
from kb.retrieval.fusion import WIDER
from kb.retrieval.preference import Preference, likeness
from tests.kb.retrieval.retrievers import make
from tests.kb.worlds import World, as_pairs, quick

AUTO = RetrievalSettings(mode="fusion", k=10, alpha=0.5, consensus=0, external_penalty="auto")


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("penalty", [0.05, 0.3])
def test_what_is_lost_counts_in_both_stages(modality: Modality, penalty: float) -> None:
    world, pairs, retriever = make(RetrievalSettings(mode="fusion", k=8, alpha=0.3))
    external = np.random.default_rng(0).random(300) < 0.5
    retriever.preference = Preference(external, {modality: penalty})
    queries = world.draw(25)[modality]
    pseudo = retriever.mapping.map(queries, source=modality)
    found = retriever.search(queries, modality, m=8)
    for number, (query, guess) in enumerate(zip(queries, pseudo, strict=True)):
        intra, cross = pairs[modality] @ query, pairs[opposite(modality)] @ guess
        fetched = np.argsort(-intra)[: WIDER * 8]
        kept = fetched[np.argsort(-(intra - penalty * external)[fetched], kind="stable")][:8]
        score = 0.3 * intra + 0.7 * cross - penalty * external
        expected = kept[np.argsort(-score[kept], kind="stable")]
        np.testing.assert_array_equal(found.rows[number], expected)
        np.testing.assert_allclose(found.score[number], score[expected], atol=1e-5)
        np.testing.assert_allclose(found.intra[number], intra[expected], atol=1e-5)


def test_likeness_is_dices_coefficient_of_runs_of_three_letters() -> None:
    assert likeness(["a red apple"], ["A  red apple"]) == 1
    assert likeness(["abc"], ["xyz"]) == 0
    # " ab", "ab " against " ab", "abc", "bc ".
    assert likeness(["ab"], ["abc"]) == pytest.approx(2 * 1 / 5)
    assert likeness(["ab", "cd"], ["cd"]) == pytest.approx(2 * 2 / 6)
    assert likeness([], []) == 0
    assert likeness(["赤い林檎"], ["赤い林檎"]) == 1


def worded(pairs: Pairs, wording: str) -> Pairs:
    """The pairs with captions that tell the topic nearest to a text, in some wording."""
    topics = normalise(np.random.default_rng(5).standard_normal((12, 48)))
    topic = (np.asarray(pairs.embeddings["text"]) @ topics.T).argmax(1)
    texts = [[wording.format("abcdefghijkl"[n] * 4)] for n in topic]
    return Pairs(pairs.table.append_column("text", pa.array(texts)), pairs.embeddings)


def built(folder: Path, wording: str, settings: RetrievalSettings = AUTO) -> KnowledgeBase:
    """A base of 80 pairs of a dataset and 160 of another set, alike but for how texts are worded."""
    world = World(3)
    internal = worded(as_pairs(world.draw(80), "own"), "log: {0}, {0} to port")
    external = worded(as_pairs(world.draw(160), "other"), wording)
    recipe = quick(purify=False, retrieval=settings)
    return KnowledgeBase.build(folder, internal, [external], recipe)


def test_pairs_in_another_wording_lose_where_texts_are_missing_alone(tmp_path: Path) -> None:
    kb = built(tmp_path / "kb", "stock picture of {0}; studio")
    told = kb.manifest["retrieval"]
    assert told["external_penalty"]["image"] > 0 == told["external_penalty"]["text"]
    evidence = told["preference"]["image"]
    best = max(evidence, key=lambda entry: entry["gain"])
    assert best["gain"] > 2 * best["standard_error"] > 0
    assert evidence[0]["penalty"] == evidence[0]["gain"] == 0
    # What was measured is what is used, here and when the folder is opened again.
    queries = World(3).draw(30)
    for base in (kb, KnowledgeBase.load(tmp_path / "kb")):
        rows = base.retriever.search(queries["image"], "image", m=1).rows
        other = base.retriever.search(queries["text"], "text", m=1).rows
        external = np.asarray(base.pairs["origin"].to_pylist()) == "external"
        assert external[rows].mean() < 0.2 < external[other].mean()


def test_pairs_in_the_same_wording_lose_nothing(tmp_path: Path) -> None:
    kb = built(tmp_path / "kb", "log: {0}, {0} to port")
    assert kb.manifest["retrieval"]["external_penalty"] == {"image": 0, "text": 0}
    assert set(kb.manifest["retrieval"]["preference"]) == set(MODALITIES)


def test_a_penalty_that_is_set_is_taken_unmeasured(tmp_path: Path) -> None:
    settings = AUTO.model_copy(update={"external_penalty": 0.25})
    kb = built(tmp_path / "kb", "log: {0}, {0} to port", settings)
    assert kb.manifest["retrieval"]["external_penalty"] == {"image": 0.25, "text": 0.25}
    assert kb.manifest["retrieval"]["preference"] == {}
    other = built(tmp_path / "other", "log: {0}, {0} to port")
    assert kb.version != other.version
