"""What a knowledge base holds once it is built, by its manifest and on disk."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kb.embeddings import normalise, sample_rows
from kb.index import EmbeddingIndex, IndexSettings
from kb.knowledge_base import KnowledgeBase
from kb.pairs import Pairs
from kb.recipe import KnowledgeBaseSettings, Recipe
from kb.retrieval import RetrievalSettings
from tests.kb.worlds import QUICK, World, as_pairs, quick, small_turn


def test_internal_pairs_come_first_then_the_kept_external_ones(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    internal, external = sides
    kb = KnowledgeBase.build(tmp_path / "kb", internal, external, QUICK)
    verdicts = pq.read_table(tmp_path / "kb" / "verdicts.parquet")
    kept = verdicts.filter(pa.compute.equal(verdicts["verdict"], "kept"))["id"].to_pylist()
    assert kb.pairs["id"].to_pylist() == internal.table["id"].to_pylist() + kept
    assert len(verdicts) == 350
    assert kb.pair(0)["text"] == "a cat"
    assert kb.pair(300)["licence"] == "CC0"
    assert kb.pair(0)["licence"] is None
    np.testing.assert_allclose(
        kb.embeddings["image"][:300], internal.embeddings["image"], atol=1e-3
    )


def test_the_manifest_tells_what_happened_and_its_counts_agree(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    recipe = replace(quick(retrieval=RetrievalSettings()), encoder={"revision": "abc"})
    kb = KnowledgeBase.build(tmp_path / "kb", *sides, recipe)
    manifest = json.loads((tmp_path / "kb" / "manifest.json").read_text())
    assert manifest == kb.manifest
    counts = manifest["counts"]
    assert (counts["internal_in"], counts["external_in"]) == (300, 350)
    assert counts["pairs"] == counts["internal"] + counts["external"] == len(kb)
    verdicts = manifest["purification"]["filter"]["verdicts"]
    assert sum(verdicts.values()) == 350
    assert verdicts["kept"] == counts["external"]
    assert verdicts["cluster"] > 60
    assert manifest["encoder"] == {"revision": "abc"}
    assert manifest["purification"]["alignment"]["image"]["gains"]
    assert manifest["mapping"]["scores"]["image"]["ridge"]["recall_at_5"] > 0.3
    assert manifest["indexes"]["text"] == {"kind": "flat", "rows": len(kb)}
    assert {step["step"] for step in manifest["steps"]} >= {"mapping", "purification", "index"}
    assert all(step["peak_bytes"] > 0 for step in manifest["steps"])
    ways = {entry["mode"] for entry in manifest["retrieval"]["evidence"]}
    assert ways == {"fusion", "pseudo", "cross"}
    assert manifest["mapping"]["scores"]["image"]["ridge+1"]["example"] > 0
    assert kb.retriever.k == manifest["retrieval"]["k"]


def test_a_loaded_knowledge_base_retrieves_alike(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]], world: World
) -> None:
    built = KnowledgeBase.build(tmp_path / "kb", *sides, QUICK)
    loaded = KnowledgeBase.load(tmp_path / "kb")
    queries = world.draw(20)
    for modality in ("image", "text"):
        assert loaded.retriever.retrieve(queries[modality], modality, m=3) == (
            built.retriever.retrieve(queries[modality], modality, m=3)
        )
        np.testing.assert_allclose(
            loaded.pseudo(queries[modality], modality), built.pseudo(queries[modality], modality)
        )
    assert loaded.version == built.version


def test_ids_are_held_as_strings_that_may_exceed_two_gibibytes_together(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    kb = KnowledgeBase.build(tmp_path / "kb", *sides, QUICK)
    assert kb.retriever.ids.type == pa.large_string()
    known = pq.read_table(tmp_path / "kb" / "known.parquet")
    assert known["id"].type == pa.large_string()
    own = kb.retriever.retrieve(
        sides[0].embeddings["image"][:5], "image", kb.pairs["id"][:5].to_pylist()
    )
    assert all(h.id != f"dataset-{n:06d}" for n, hits in enumerate(own) for h in hits)


def test_the_version_follows_the_content(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]], world: World
) -> None:
    internal, external = sides
    one = KnowledgeBase.build(tmp_path / "one", internal, external, QUICK)
    same = KnowledgeBase.build(tmp_path / "two", internal, external, QUICK)
    other = KnowledgeBase.build(tmp_path / "three", internal, external[:1], QUICK)
    assert one.version == same.version != other.version
    settled = quick(retrieval=RetrievalSettings(k=3, alpha=0.125))
    fourth = KnowledgeBase.build(tmp_path / "four", internal, external, settled)
    assert fourth.version != one.version


def test_external_embeddings_are_aligned(tmp_path: Path) -> None:
    world = World(1)
    internal, external = world.draw(600), world.draw(900)
    turns = {m: small_turn(48, 0.5, seed) for seed, m in enumerate(("image", "text"))}
    shifted = {m: external[m] @ turns[m] for m in turns}
    kb = KnowledgeBase.build(
        tmp_path / "kb", as_pairs(internal, "dataset"), [as_pairs(shifted, "web")], QUICK
    )
    ids = [int(i[4:]) for i in kb.pairs["id"].to_pylist() if i.startswith("web-")]
    assert len(ids) > 0.9 * 900
    for modality in ("image", "text"):
        held = np.asarray(kb.embeddings[modality][600:], np.float32)
        before = np.einsum("nd,nd->n", shifted[modality][ids], external[modality][ids]).mean()
        after = np.einsum("nd,nd->n", held, external[modality][ids]).mean()
        assert after > before + 0.3 * (1 - before)


def test_without_external_sets_the_knowledge_base_is_internal(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    kb = KnowledgeBase.build(tmp_path / "kb", sides[0], [], QUICK)
    assert kb.manifest["counts"]["by_source"] == {"dataset": 300}
    assert kb.manifest["purification"] is None


def test_unpurified_external_pairs_are_all_there_as_they_were(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    internal, external = sides
    recipe = quick(purify=False)
    kb = KnowledgeBase.build(tmp_path / "kb", internal, external, recipe)
    assert len(kb) == 650
    np.testing.assert_allclose(
        kb.embeddings["text"][300:600], external[0].embeddings["text"], atol=1e-3
    )


def test_sources_choose_what_can_be_retrieved(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    for source, names in (("internal", {"dataset"}), ("external", {"web", "more"})):
        recipe = quick(sources=[source])
        kb = KnowledgeBase.build(tmp_path / source, *sides, recipe)
        assert set(kb.manifest["counts"]["by_source"]) == names


@pytest.mark.slow
def test_the_papers_settings_build(tmp_path: Path, sides: tuple[Pairs, list[Pairs]]) -> None:
    recipe = Recipe(KnowledgeBaseSettings.paper())
    kb = KnowledgeBase.build(tmp_path / "kb", *sides, recipe)
    assert kb.manifest["mapping"]["chosen"] == {"image": "mlp", "text": "mlp"}
    assert kb.manifest["purification"]["filter"]["tau_cent"] == 0.6
    assert "provisional_alignment" not in kb.manifest["purification"]
    assert kb.manifest["purification"]["alignment"]["image"]["gamma"] == 0
    assert (kb.retriever.k, kb.retriever.alpha("image")) == (10, 0.5)


def test_a_wholly_irrelevant_external_set_leaves_the_internal_base_with_a_warning(
    tmp_path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    internal = as_pairs(world.draw(300), "dataset")
    with caplog.at_level(logging.WARNING):
        kb = KnowledgeBase.build(
            tmp_path / "kb", internal, [as_pairs(world.draw_noise(200), "noise")], QUICK
        )
    assert kb.manifest["counts"]["by_source"] == {"dataset": 300}
    assert kb.manifest["purification"]["filter"]["verdicts"]["kept"] == 0
    [warning] = kb.manifest["purification"]["warnings"]
    assert warning.startswith("external set 'noise': none of its 200 pairs passed the filter")
    assert warning in caplog.text


def test_unequal_dimensions_go_through(tmp_path: Path) -> None:
    world = World(2, dimensions=(48, 20))
    kb = KnowledgeBase.build(
        tmp_path / "kb",
        as_pairs(world.draw(200), "dataset"),
        [as_pairs(world.draw(200), "web")],
        replace(QUICK, shared_space=False),
    )
    assert kb.manifest["dimensions"] == {"image": 48, "text": 20}
    assert len(kb.retriever.retrieve(world.draw(3)["text"], "text")) == 3


def test_one_internal_pair_is_enough_to_build(tmp_path: Path, world: World) -> None:
    kb = KnowledgeBase.build(
        tmp_path / "kb", as_pairs(world.draw(1), "dataset"), [as_pairs(world.draw(40), "web")]
    )
    assert kb.mapping.chosen_ == {"image": "start", "text": "start"}
    assert kb.retriever.retrieve(world.draw(1)["image"], "image")[0]


def test_a_few_internal_pairs_keep_all_external_ones_and_say_so(
    tmp_path: Path, world: World
) -> None:
    external = as_pairs(world.draw(100), "web")
    kb = KnowledgeBase.build(tmp_path / "kb", as_pairs(world.draw(10), "dataset"), [external])
    assert kb.manifest["counts"]["external"] == 100
    [warning] = kb.manifest["purification"]["warnings"]
    assert warning.startswith("10 complete pairs are too few")


@pytest.mark.parametrize("shared_space", [True, False])
def test_indexes_of_a_base_that_is_asked_across_are_tuned_across(
    tmp_path: Path, shared_space: bool
) -> None:
    world = World(0)
    internal = as_pairs(world.draw(300), "dataset")
    recipe = replace(
        quick(
            index=IndexSettings(index="ivf", lists=60),
            retrieval=RetrievalSettings(mode="cross", k=10),
        ),
        shared_space=shared_space,
    )
    kb = KnowledgeBase.build(tmp_path / "kb", internal, [], recipe)
    held_out = kb.held_out()
    assert held_out is not None
    for modality, other in (("image", "text"), ("text", "image")):
        asked = internal.embeddings[other] if shared_space else held_out.predictions[other]
        rows = sample_rows(300, 256, 0) if shared_space else np.arange(256)
        expected = EmbeddingIndex.build(
            kb.embeddings[modality], recipe.settings.index, queries=normalise(asked[rows])
        )
        assert kb.manifest["indexes"][modality] == expected.describe()
        assert len(expected.evidence["recall_at_10"]) > 1
    # An index that is lost is tuned as the first was.
    before = kb.manifest["indexes"]
    (tmp_path / "kb" / "indexes" / "image.faiss").unlink()
    assert KnowledgeBase.update(tmp_path / "kb", internal, [], recipe).manifest["indexes"] == before
