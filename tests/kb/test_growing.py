"""A knowledge base that grows: what joins, what leaves, and what asks for a fit."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kb.embeddings import normalise
from kb.filtering import FilterSettings
from kb.index.kinds import IndexSettings
from kb.knowledge_base import KnowledgeBase
from kb.mapping import MappingSettings, NoCompletePairs
from kb.pairs import Pairs
from tests.kb.worlds import QUICK, World, as_pairs, quick, small_turn, together


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
    recipe = quick(refit_share=0.2)
    old = KnowledgeBase.build(
        tmp_path / "kb", part(internal, 0, 290), [part(external[0], 0, 250), external[1]], recipe
    )
    fitted = (tmp_path / "kb" / "mapping" / "mapping.safetensors").read_bytes()
    count, first = len(old), np.array(old.embeddings["image"])
    kb = KnowledgeBase.update(tmp_path / "kb", internal, external, recipe)
    assert (tmp_path / "kb" / "mapping" / "mapping.safetensors").read_bytes() == fitted
    np.testing.assert_array_equal(kb.embeddings["image"][:count], first)
    new = kb.pairs.slice(count)
    assert set(new["id"].to_pylist()) >= set(internal.table["id"].to_pylist()[290:])
    assert new["added"].to_pylist() == [1] * len(new)
    latest = kb.manifest["additions"][1]
    assert (latest["internal"], latest["external"]) == (10, 50)
    # The last 50 rows of "web" are noise.
    assert latest["external_kept"] <= 15
    assert latest["external_kept"] + sum(latest["external_dropped"].values()) == 50
    assert {step["step"] for step in latest["steps"]} == {
        "purification",
        "pairs",
        "index",
        "digests",
    }
    assert kb.manifest["steps"] == old.manifest["steps"]
    judged = kb.manifest["purification"]["filter"]
    assert judged["rows_in"] == sum(judged["verdicts"].values()) == 350
    assert judged["verdicts"]["kept"] == kb.manifest["counts"]["external"]
    assert len(pq.read_table(tmp_path / "kb" / "verdicts.parquet")) == 350
    assert kb.version != old.version
    hits = kb.retriever.retrieve(internal.embeddings["image"][290:], "image", m=50)
    assert all(f"dataset-{290 + n:06d}" in [h.id for h in found] for n, found in enumerate(hits))
    assert KnowledgeBase.update(tmp_path / "kb", internal, external, recipe).version == kb.version


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


def test_an_index_follows_until_the_base_has_twice_its_rows(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    internal = as_pairs(world.draw(100), "dataset")
    web = as_pairs(world.draw(900), "web")
    recipe = quick(purify=False, index=IndexSettings(index="ivf"))
    built = KnowledgeBase.build(tmp_path / "kb", internal, [part(web, 0, 300)], recipe)
    assert built.manifest["indexes"]["text"]["trained_for"] == 400
    with monkeypatch.context() as patch:
        # Neither the pairs that join nor the one that leaves ask for a training.
        patch.setattr("kb.index.EmbeddingIndex.build", None)
        kb = KnowledgeBase.update(tmp_path / "kb", internal, [part(web, 1, 700)], recipe)
    described = kb.manifest["indexes"]["text"]
    assert (described["rows"], described["trained_for"]) == (799, 400)
    hits = kb.retriever.retrieve(web.embeddings["text"][1:700:20], "text", m=10)
    found = [
        f"web-{n:06d}" in [h.id for h in one]
        for n, one in zip(range(1, 700, 20), hits, strict=True)
    ]
    assert np.mean(found) > 0.8
    kb = KnowledgeBase.update(tmp_path / "kb", internal, [part(web, 1, 900)], recipe)
    described = kb.manifest["indexes"]["text"]
    assert (described["rows"], described["trained_for"]) == (999, 999)
    assert described["lists"] > built.manifest["indexes"]["text"]["lists"]


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
        "external_dropped": {"cluster": 0, "instance": 0},
        "gone": 1,
        "steps": kb.manifest["additions"][1]["steps"],
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


def test_external_rows_that_the_filter_drops_are_recorded_and_change_no_version(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]], world: World
) -> None:
    internal, external = sides
    old = KnowledgeBase.build(tmp_path / "kb", internal, external, QUICK)
    noise = as_pairs(world.draw_noise(30), "night").table["id"]
    # Copies of a row that the filter drops, as a later shard of the same source.
    verdicts = pq.read_table(tmp_path / "kb" / "verdicts.parquet")
    dropped = verdicts.filter(pa.compute.equal(verdicts["verdict"], "cluster"))["id"][0].as_py()
    row = np.full(30, external[0].table["id"].to_pylist().index(dropped))
    shard = external[0].select(row)
    shard = Pairs(shard.table.set_column(0, "id", noise), shard.embeddings)
    kb = KnowledgeBase.update(tmp_path / "kb", internal, [*external, shard], QUICK)
    latest = kb.manifest["additions"][1]
    assert (latest["external"], latest["external_kept"]) == (30, 0)
    assert latest["external_dropped"] == {"cluster": 30, "instance": 0}
    assert len(kb) == len(old)
    assert kb.version == old.version


def test_an_update_that_would_leave_no_pair_to_retrieve_is_refused_and_the_base_stays(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]], world: World
) -> None:
    recipe = quick(sources=["external"])
    internal, external = sides
    old = KnowledgeBase.build(tmp_path / "kb", part(internal, 0, 299), [external[1]], recipe)
    # Every pair of the source is replaced by one that the filter drops.
    noise = world.draw_noise(50)
    with pytest.raises(NoCompletePairs, match="would hold no pair"):
        KnowledgeBase.update(tmp_path / "kb", internal, [Pairs(external[1].table, noise)], recipe)
    assert KnowledgeBase.load(tmp_path / "kb").version == old.version


@pytest.mark.parametrize(("weight", "refits"), [("auto", True), (0, False)])
def test_many_new_external_pairs_ask_for_a_fit_where_the_mapping_may_be_fitted_to_them(
    tmp_path: Path,
    sides: tuple[Pairs, list[Pairs]],
    caplog: pytest.LogCaptureFixture,
    weight: float | str,
    refits: bool,
) -> None:
    internal, external = sides
    recipe = quick(mapping=MappingSettings(method="ridge", external=weight))
    some = [part(external[0], 0, 250), external[1]]
    KnowledgeBase.build(tmp_path / "kb", internal, some, recipe)
    with caplog.at_level(logging.INFO):
        kb = KnowledgeBase.update(tmp_path / "kb", internal, external, recipe)
    told = "50 external pairs came or went since the last fit, which had 300"
    assert (told in caplog.text) is refits
    assert kb.manifest["counts"]["external_changed"] == (0 if refits else 50)


@pytest.mark.parametrize("provisional_alignment", [False, True])
def test_pairs_that_join_are_judged_as_those_of_the_build_were(
    tmp_path: Path, world: World, provisional_alignment: bool
) -> None:
    internal = as_pairs(world.draw(400), "dataset")
    drawn = together(world.draw(300), world.draw_noise(100))
    turned = {m: normalise(rows @ small_turn(48, 0.9, seed=1)) for m, rows in drawn.items()}
    first = as_pairs(turned, "web")
    again = Pairs(
        first.table.set_column(0, "id", pa.array([f"again-{n:06d}" for n in range(400)])), turned
    )
    settings = FilterSettings(provisional_alignment=provisional_alignment)
    recipe = quick(filter=settings, refit_share=1.0)
    KnowledgeBase.build(tmp_path / "kb", internal, [first], recipe)
    both = Pairs(
        pa.concat_tables([first.table, again.table]),
        {m: np.concatenate([rows, rows]) for m, rows in turned.items()},
    )
    KnowledgeBase.update(tmp_path / "kb", internal, [both], recipe)
    judged = pq.read_table(tmp_path / "kb" / "verdicts.parquet")
    built, joined = (judged.filter(pa.compute.equal(judged["added"], n)) for n in (0, 1))
    assert 0 < sum(v == "kept" for v in built["verdict"].to_pylist()) < 400
    for name in ("verdict", "centroid_similarity", "instance_similarity"):
        assert joined[name].to_pylist() == built[name].to_pylist()
