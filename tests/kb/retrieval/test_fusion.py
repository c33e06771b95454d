from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kb.embeddings import MODALITIES, Modality
from kb.index import EmbeddingIndex
from kb.index.kinds import IndexSettings
from kb.mapping import CrossModalMapping, MappingSettings
from kb.retrieval import FusionRetriever, RetrievalSettings
from tests.kb.retrieval.retrievers import fusion_by_loops, make
from tests.kb.worlds import World


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("dimensions", [(48, 48), (48, 20)])
def test_fusion_is_its_two_formulas(modality: Modality, dimensions: tuple[int, int]) -> None:
    settings = RetrievalSettings(k=8, alpha=0.3)
    world, pairs, retriever = make(settings, dimensions=dimensions, shared_space=False)
    queries = world.draw(25)[modality]
    pseudo = retriever.mapping.map(queries, source=modality)
    hits = retriever.retrieve(queries, modality, m=8)
    for query, guess, found in zip(queries, pseudo, hits, strict=True):
        expected = fusion_by_loops(query, guess, pairs, modality, 8, 0.3)
        assert [hit.row for hit in found] == [row for row, _ in expected]
        np.testing.assert_allclose([h.score for h in found], [s for _, s in expected], atol=1e-5)
        assert [hit.id for hit in found] == [f"p{hit.row:04d}" for hit in found]
        np.testing.assert_allclose(
            [hit.score for hit in found],
            [0.3 * hit.intra + 0.7 * hit.cross for hit in found],
            atol=1e-5,
        )


def test_a_row_never_retrieves_itself_by_id() -> None:
    settings = RetrievalSettings(k=5, alpha=0.5)
    _, pairs, retriever = make(settings)
    ids = [f"p{number:04d}" for number in range(300)]
    with_self = retriever.search(pairs["image"], "image", m=5)
    without = retriever.search(pairs["image"], "image", ids=ids, m=5)
    assert (with_self.rows == np.arange(300)[:, None]).any(axis=1).all()
    assert not (without.rows == np.arange(300)[:, None]).any()
    assert (without.rows >= 0).all()
    pseudo = retriever.mapping.map(pairs["image"], source="image")
    for row in range(0, 300, 37):
        expected = fusion_by_loops(pairs["image"][row], pseudo[row], pairs, "image", 5, 0.5, row)
        assert list(without.rows[row]) == [found for found, _ in expected]


def test_intra_stops_after_stage_one() -> None:
    world, pairs, retriever = make(RetrievalSettings(mode="intra", k=10))
    queries = world.draw(10)["text"]
    found = retriever.search(queries, "text", m=4)
    expected = np.argsort(-(queries @ pairs["text"].T), axis=1)[:, :4]
    np.testing.assert_array_equal(found.rows, expected)


def test_cross_compares_directly_in_a_shared_space() -> None:
    world, pairs, retriever = make(RetrievalSettings(mode="cross", k=10))
    queries = world.draw(10)["image"]
    found = retriever.search(queries, "image", m=4)
    expected = np.argsort(-(queries @ pairs["text"].T), axis=1)[:, :4]
    np.testing.assert_array_equal(found.rows, expected)
    np.testing.assert_allclose(found.score, found.cross)


def test_cross_goes_through_the_pseudo_embedding_without_a_shared_space() -> None:
    world, pairs, retriever = make(
        RetrievalSettings(mode="cross", k=10), dimensions=(48, 20), shared_space=False
    )
    queries = world.draw(10)["image"]
    pseudo = retriever.mapping.map(queries, source="image")
    expected = np.argsort(-(pseudo @ pairs["text"].T), axis=1)[:, :3]
    np.testing.assert_array_equal(retriever.search(queries, "image", m=3).rows, expected)


def test_ties_go_to_the_lower_id_whatever_the_order_of_rows() -> None:
    world = World(1)
    one = world.draw(1)
    pairs = {m: np.repeat(one[m], 40, axis=0) for m in MODALITIES}
    ids = [f"p{number:02d}" for number in np.random.default_rng(0).permutation(40)]
    indexes = {m: EmbeddingIndex.build(pairs[m]) for m in MODALITIES}
    retriever = FusionRetriever(pairs, indexes, ids, None, RetrievalSettings(k=40, alpha=1.0))
    hits = retriever.retrieve(one["image"], "image", m=40)[0]
    assert [hit.id for hit in hits] == sorted(ids)


def with_copies(
    copies: int, settings: IndexSettings, folder: Path, seed: int
) -> tuple[FusionRetriever, np.ndarray]:
    """A base on disk with many copies of one pair, its rows in an order by the seed; the pair."""
    world = World(2)
    one, others = world.draw(1), world.draw(400)
    order = np.random.default_rng(seed).permutation(400 + copies)
    ids = np.array([f"p{number:04d}" for number in range(400 + copies)])[order]
    pairs = {}
    for modality in MODALITIES:
        rows = np.concatenate([others[modality], np.repeat(one[modality], copies, axis=0)])
        path = folder / f"{modality}-{seed}.npy"
        np.save(path, rows[order].astype(np.float16))
        pairs[modality] = np.load(path, mmap_mode="r")
    indexes = {m: EmbeddingIndex.build(pairs[m], settings) for m in MODALITIES}
    fusion = RetrievalSettings(k=10, alpha=1.0)
    return FusionRetriever(pairs, indexes, list(ids), None, fusion), one["image"]


@pytest.mark.parametrize("kind", ["flat", "ivf", "ivf_sq8", "ivf_pq"])
@pytest.mark.parametrize("copies", [15, 40, pytest.param(300, marks=pytest.mark.slow)])
def test_of_more_ties_than_are_fetched_the_lowest_ids_are_found_however_rows_are_stored(
    kind: str, copies: int, tmp_path: Path
) -> None:
    lists = {"lists": 8, "probes": 8} if kind != "flat" else {}
    for seed in range(3):
        retriever, query = with_copies(copies, IndexSettings(index=kind, **lists), tmp_path, seed)
        # Its own row is among them, and lower than all that may be found.
        queries = np.repeat(query, 30, axis=0)
        found = retriever.retrieve(queries, "image", ids=["p0400"] * 30, m=10)
        expected = [f"p{400 + number:04d}" for number in range(1, 11)]
        assert [[hit.id for hit in hits] for hits in found] == [expected] * 30


def test_ties_beyond_the_bound_still_give_k_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kb.retrieval.nearest_rows.MOST_FETCHED", 64)
    retriever, query = with_copies(300, IndexSettings(index="flat"), tmp_path, 0)
    hits = retriever.retrieve(query, "image", m=10)[0]
    assert len({hit.id for hit in hits}) == 10
    assert all(hit.id >= "p0400" for hit in hits)


def test_lists_that_hold_too_few_leave_gaps_and_order_equal_rows(tmp_path: Path) -> None:
    settings = IndexSettings(index="ivf", lists=100, probes=1)
    retriever, query = with_copies(12, settings, tmp_path, 0)
    retriever.settings = RetrievalSettings(k=60, alpha=1.0)
    found = retriever.search(query, "image", m=60)
    held = int((found.rows >= 0).sum())
    assert 12 <= held < 60
    assert (found.rows[0, held:] == -1).all()
    assert np.isnan(found.score[0, held:]).all()
    ids = [hit.id for hit in retriever.retrieve(query, "image", m=60)[0]]
    assert ids[:12] == [f"p{400 + number:04d}" for number in range(12)]


def test_equal_rows_are_ordered_alike_alone_and_in_bulk() -> None:
    world = World(3)
    pairs = {m: np.repeat(rows, 3, axis=0) for m, rows in world.draw(400).items()}
    ids = [f"p{number:04d}" for number in np.random.default_rng(0).permutation(1200)]
    indexes = {m: EmbeddingIndex.build(pairs[m]) for m in MODALITIES}
    mapping = CrossModalMapping(MappingSettings(method="ridge")).fit(pairs["image"], pairs["text"])
    settings = RetrievalSettings(k=10, alpha=0.5)
    retriever = FusionRetriever(pairs, indexes, ids, mapping, settings)
    queries = world.draw(400)["image"]
    bulk = retriever.retrieve(queries, "image", m=6)
    for query, hits in zip(queries, bulk, strict=True):
        alone = retriever.retrieve(query[None], "image", m=6)[0]
        assert [hit.id for hit in alone] == [hit.id for hit in hits]
        copies = [
            [hit.id for hit in hits if hit.row // 3 == pair] for pair in {h.row // 3 for h in hits}
        ]
        assert all(found == sorted(found) for found in copies)


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world, _, retriever = make(RetrievalSettings(k=10, alpha=0.5))
    queries = world.draw(50)["image"]
    at_once = retriever.search(queries, "image", m=3)
    monkeypatch.setattr("kb.retrieval.nearest_rows.CANDIDATES_AT_ONCE", 100)
    in_blocks = retriever.search(queries, "image", m=3)
    np.testing.assert_array_equal(in_blocks.rows, at_once.rows)
    np.testing.assert_allclose(in_blocks.score, at_once.score, atol=1e-6)


def test_queries_are_answered_alike_alone_and_in_bulk() -> None:
    world, _, retriever = make(RetrievalSettings(k=10, alpha=0.5))
    queries = world.draw(50)["image"]
    bulk = retriever.search(queries, "image", m=3)
    for row in range(50):
        alone = retriever.search(queries[row : row + 1], "image", m=3)
        np.testing.assert_array_equal(alone.rows[0], bulk.rows[row])


def test_fewer_pairs_than_examples_leave_gaps() -> None:
    world, _, retriever = make(RetrievalSettings(k=10, alpha=0.5), count=3, method="auto")
    found = retriever.search(world.draw(2)["image"], "image", m=5)
    assert found.rows.shape == (2, 5)
    assert (found.rows[:, 3:] == -1).all()
    assert np.isnan(found.score[:, 3:]).all()
    assert [len(hits) for hits in retriever.retrieve(world.draw(2)["image"], "image", m=5)] == [
        3,
        3,
    ]


def test_a_mapping_that_says_nothing_sets_alpha_to_one() -> None:
    world, pairs, retriever = make(RetrievalSettings(k=10, alpha=0.0))
    retriever.mapping.constant_["image"] = True
    queries = world.draw(5)["image"]
    found = retriever.search(queries, "image")
    expected = np.argmax(queries @ pairs["image"].T, axis=1)
    np.testing.assert_array_equal(found.rows[:, 0], expected)
    np.testing.assert_allclose(found.score, found.intra)


def test_sides_that_disagree_in_size_are_refused() -> None:
    _, pairs, retriever = make(RetrievalSettings())
    with pytest.raises(ValueError, match="disagree in size"):
        FusionRetriever(pairs, retriever.indexes, ["only one"])
