from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kb.filtering import FilterSettings
from kb.index import IndexSettings
from kb.knowledge_base import KnowledgeBase
from kb.mapping import MappingSettings, NoCompletePairs
from kb.pairs import Pairs
from kb.recipe import KnowledgeBaseSettings, Recipe
from tests.kb.worlds import World, as_pairs, small_turn, together


def quick(**changes: Any) -> Recipe:
    """A recipe without a network in it."""
    return Recipe(KnowledgeBaseSettings(mapping=MappingSettings(method="ridge"), **changes))


QUICK = quick()


@pytest.fixture
def world() -> World:
    return World(0)


@pytest.fixture
def sides(world: World) -> tuple[Pairs, list[Pairs]]:
    internal = as_pairs(world.draw(300), "dataset", text="a cat")
    external = as_pairs(
        together(world.draw(200), world.draw_noise(100)), "web", licence="CC0", text="a dog"
    )
    return internal, [external, as_pairs(world.draw(50), "more")]


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
    kb = KnowledgeBase.build(tmp_path / "kb", *sides, replace(QUICK, encoder={"revision": "abc"}))
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
    assert len(manifest["retrieval"]["evidence"]) == 20
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


def test_the_version_follows_the_content(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]], world: World
) -> None:
    internal, external = sides
    one = KnowledgeBase.build(tmp_path / "one", internal, external, QUICK)
    same = KnowledgeBase.build(tmp_path / "two", internal, external, QUICK)
    other = KnowledgeBase.build(tmp_path / "three", internal, external[:1], QUICK)
    assert one.version == same.version != other.version


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
    assert "no external pair passed the filter" in caplog.text


def test_nothing_to_retrieve_from_is_an_error_and_leaves_no_folder(
    tmp_path: Path, world: World
) -> None:
    recipe = quick(sources=["external"])
    internal = as_pairs(world.draw(300), "dataset")
    with pytest.raises(ValueError, match="would hold no pair"):
        KnowledgeBase.build(
            tmp_path / "kb", internal, [as_pairs(world.draw_noise(200), "noise")], recipe
        )
    assert list(tmp_path.iterdir()) == []


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


def test_no_internal_pair_says_what_to_do(tmp_path: Path, world: World) -> None:
    with pytest.raises(NoCompletePairs, match="needs rows with both an image and a text"):
        KnowledgeBase.build(tmp_path / "kb", as_pairs(world.draw(0), "dataset"))


def test_an_external_set_of_another_dimension_is_named(tmp_path: Path, world: World) -> None:
    other = as_pairs(World(3, dimensions=(48, 20)).draw(30), "narrow")
    with pytest.raises(ValueError, match="'narrow': text embeddings must have dimension 48.* 20"):
        KnowledgeBase.build(tmp_path / "kb", as_pairs(world.draw(50), "dataset"), [other], QUICK)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not finite"), (0.0, "all zero")])
def test_a_bad_external_embedding_is_refused_and_the_old_base_stays(
    value: float, words: str, tmp_path: Path, sides: tuple[Pairs, list[Pairs]], world: World
) -> None:
    old = KnowledgeBase.build(tmp_path / "kb", *sides, QUICK)
    bad = world.draw(60)
    bad["image"][17] = value
    with pytest.raises(ValueError, match=f"row 17 is {words}"):
        KnowledgeBase.build(tmp_path / "kb", sides[0], [as_pairs(bad, "bad")], QUICK)
    assert KnowledgeBase.load(tmp_path / "kb").version == old.version
    assert [path.name for path in tmp_path.iterdir()] == ["kb"]


def test_an_id_that_comes_twice_is_named(tmp_path: Path, world: World) -> None:
    pairs = as_pairs(world.draw(40), "dataset")
    with pytest.raises(ValueError, match="'dataset-0000.*more than one pair"):
        KnowledgeBase.build(tmp_path / "kb", pairs, [pairs], QUICK)


def part(pairs: Pairs, start: int, stop: int) -> Pairs:
    return pairs.select(np.arange(start, stop))


def test_an_update_with_nothing_new_changes_no_file(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    KnowledgeBase.build(tmp_path / "kb", *sides, QUICK)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "kb").rglob("*")}
    KnowledgeBase.update(tmp_path / "kb", *sides, QUICK)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "kb").rglob("*")} == before


def test_new_pairs_join_without_a_fit_and_the_manifest_says_when(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    internal, external = sides
    old = KnowledgeBase.build(
        tmp_path / "kb", part(internal, 0, 290), [part(external[0], 0, 250), external[1]], QUICK
    )
    fitted = (tmp_path / "kb" / "mapping" / "mapping.safetensors").read_bytes()
    count, first = len(old), np.array(old.embeddings["image"])
    kb = KnowledgeBase.update(tmp_path / "kb", internal, external, QUICK)
    assert (tmp_path / "kb" / "mapping" / "mapping.safetensors").read_bytes() == fitted
    np.testing.assert_array_equal(kb.embeddings["image"][:count], first)
    new = kb.pairs.slice(count)
    assert set(new["id"].to_pylist()) >= set(internal.table["id"].to_pylist()[290:])
    assert new["added"].to_pylist() == [1] * len(new)
    latest = kb.manifest["additions"][1]
    assert (latest["internal"], latest["external"]) == (10, 50)
    # The last 50 rows of "web" are noise.
    assert latest["external_kept"] <= 15
    assert len(pq.read_table(tmp_path / "kb" / "verdicts.parquet")) == 350
    assert kb.version != old.version
    hits = kb.retriever.retrieve(internal.embeddings["image"][290:], "image", m=50)
    assert all(f"dataset-{290 + n:06d}" in [h.id for h in found] for n, found in enumerate(hits))
    assert KnowledgeBase.update(tmp_path / "kb", internal, external, QUICK).version == kb.version


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("grown", "50 internal pairs came or went since the last fit, which had 250"),
        ("source", "external source 'more' is new"),
        ("withdrawn", "external source 'more' is gone"),
        ("settings", "settings changed"),
    ],
)
def test_other_changes_build_anew_and_say_why(
    change: str, reason: str, tmp_path: Path, sides: tuple[Pairs, list[Pairs]], caplog
) -> None:
    internal, external = sides
    before = [part(internal, 0, 250) if change == "grown" else internal, external, QUICK]
    if change == "source":
        before[1] = external[:1]
    KnowledgeBase.build(tmp_path / "kb", *before)
    recipe = QUICK
    if change == "withdrawn":
        external = external[:1]
    elif change == "settings":
        recipe = quick(filter=FilterSettings(tau_inst=0.1))
    with caplog.at_level(logging.INFO):
        kb = KnowledgeBase.update(tmp_path / "kb", internal, external, recipe)
    assert "building the knowledge base: " in caplog.text
    assert reason in caplog.text
    assert len(kb.manifest["additions"]) == 1


def test_small_additions_sum_up_to_a_refit(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    internal, external = sides
    KnowledgeBase.build(tmp_path / "kb", part(internal, 0, 270), external, QUICK)
    kb = KnowledgeBase.update(tmp_path / "kb", part(internal, 0, 285), external, QUICK)
    assert kb.manifest["counts"]["internal_at_fit"] == 270
    kb = KnowledgeBase.update(tmp_path / "kb", internal, external, QUICK)
    assert kb.manifest["counts"]["internal_at_fit"] == 300
    assert len(kb.manifest["additions"]) == 1


@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_pairs_that_are_gone_leave_and_the_others_stay_as_they_are(
    index: str, tmp_path: Path, sides: tuple[Pairs, list[Pairs]], world: World
) -> None:
    internal, external = sides
    recipe = quick(index=IndexSettings(index=index, probes=4))
    old = KnowledgeBase.build(tmp_path / "kb", internal, external, recipe)
    fitted = (tmp_path / "kb" / "mapping" / "mapping.safetensors").read_bytes()
    ids, rows = old.pairs["id"].to_pylist(), np.array(old.embeddings["text"])
    gone = {*internal.table["id"].to_pylist()[:3], *external[0].table["id"].to_pylist()[:2]}
    external = [part(external[0], 2, 300), external[1]]
    kb = KnowledgeBase.update(tmp_path / "kb", part(internal, 3, 300), external, recipe)
    assert (tmp_path / "kb" / "mapping" / "mapping.safetensors").read_bytes() == fitted
    stays = np.array([i not in gone for i in ids])
    assert kb.pairs["id"].to_pylist() == [i for i in ids if i not in gone]
    np.testing.assert_array_equal(kb.embeddings["text"], rows[stays])
    assert kb.manifest["additions"][1]["gone"] == 5
    assert (kb.manifest["counts"]["internal_in"], kb.manifest["counts"]["external_in"]) == (
        297,
        348,
    )
    assert kb.manifest["counts"]["pairs"] == len(kb) == len(kb.retriever.indexes["image"])
    verdicts = pq.read_table(tmp_path / "kb" / "verdicts.parquet")["id"].to_pylist()
    assert len(verdicts) == 348 and not gone & set(verdicts)
    hits = kb.retriever.retrieve(internal.embeddings["image"][3:20], "image", m=50)
    assert not gone & {hit.id for found in hits for hit in found}
    assert all(f"dataset-{3 + n:06d}" in [h.id for h in found] for n, found in enumerate(hits))
    KnowledgeBase.load(tmp_path / "kb")


def test_a_pair_whose_embedding_changed_is_replaced(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    internal, external = sides
    KnowledgeBase.build(tmp_path / "kb", internal, external, QUICK)
    embeddings = {m: np.array(internal.embeddings[m]) for m in ("image", "text")}
    embeddings["text"][3] = embeddings["text"][4]
    kb = KnowledgeBase.update(tmp_path / "kb", Pairs(internal.table, embeddings), external, QUICK)
    row = kb.pairs["id"].to_pylist().index("dataset-000003")
    assert row == len(kb) - 1
    assert kb.pair(row)["added"] == 1
    np.testing.assert_allclose(kb.embeddings["text"][row], embeddings["text"][3], atol=1e-3)
    assert kb.manifest["additions"][1] | {"time": ""} == {
        "number": 1,
        "time": "",
        "internal": 1,
        "external": 0,
        "external_kept": 0,
        "gone": 1,
    }


def test_a_moved_file_and_another_order_are_nothing_new_but_known(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    internal, external = sides
    old = KnowledgeBase.build(tmp_path / "kb", internal, external, QUICK)
    order = np.random.default_rng(0).permutation(300)
    moved = internal.table.set_column(2, "text", pa.array(["moved"] * 300))
    kb = KnowledgeBase.update(
        tmp_path / "kb", Pairs(moved, internal.embeddings).select(order), external, QUICK
    )
    assert kb.version == old.version
    assert len(kb.manifest["additions"]) == 1
    assert kb.pairs["id"].equals(old.pairs["id"])
    assert kb.pair(0)["text"] == "moved"
    assert kb.pair(300)["text"] == "a dog"


def test_external_pairs_judged_by_a_base_without_rotations_ask_for_a_build(
    tmp_path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    internal, noise = as_pairs(world.draw(300), "dataset"), as_pairs(world.draw_noise(200), "web")
    KnowledgeBase.build(tmp_path / "kb", internal, [part(noise, 0, 190)], QUICK)
    with caplog.at_level(logging.INFO):
        KnowledgeBase.update(tmp_path / "kb", internal, [noise], QUICK)
    assert "no rotation to bring new external pairs in by" in caplog.text
