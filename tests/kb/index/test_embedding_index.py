from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kb.embeddings import InvalidEmbedding, normalise
from kb.index import EmbeddingIndex
from kb.index.kinds import IndexSettings, kind_for, outgrown
from tests.kb.worlds import World


def brute_force(queries: np.ndarray, base: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries.astype(np.float64) @ base.T.astype(np.float64)), axis=1)[:, :k]


def test_a_flat_index_finds_the_exact_neighbours() -> None:
    world = World(0)
    base, queries = world.draw(500)["image"], world.draw(20)["image"]
    index = EmbeddingIndex.build(base)
    similarities, rows = index.search(queries, 7)
    np.testing.assert_array_equal(rows, brute_force(queries, base, 7))
    expected = np.take_along_axis(queries @ base.T, rows, axis=1)
    np.testing.assert_allclose(similarities, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["ivf", "ivf_sq8", "ivf_pq"])
def test_auto_probes_reach_the_recall_goal(kind: str) -> None:
    world = World(2, topics=60, dimensions=(16, 16))
    base, queries = world.draw(6000)["image"], world.draw(200)["image"]
    index = EmbeddingIndex.build(base, IndexSettings(index=kind))
    refine = {"ivf": 1, "ivf_sq8": 2, "ivf_pq": 10}[kind]
    _, rows = index.search(queries, 10 * refine)
    truth = brute_force(queries, base, 10)
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, rows, strict=True)])
    assert recall >= 0.93
    assert max(index.evidence["recall_at_10"].values()) >= 0.95


def test_auto_goes_from_flat_to_lists_to_compressed_codes_with_size() -> None:
    sizes = (1000, 200_000, 20_000_000, 100_000_000)
    assert [kind_for(size) for size in sizes] == ["flat", "ivf", "ivf_sq8", "ivf_pq"]


@pytest.mark.parametrize("kind", ["ivf", "ivf_sq8", "ivf_pq"])
@pytest.mark.parametrize("probes", [1, 5, 100])
def test_queries_taken_in_the_order_of_their_lists_find_what_faiss_finds(
    kind: str, probes: int
) -> None:
    world = World(10, topics=30, dimensions=(16, 16))
    base, queries = world.draw(3000)["image"], world.draw(1300)["image"]
    index = EmbeddingIndex.build(base, IndexSettings(index=kind, lists=40, probes=probes))
    similarities, rows = index.search(queries, 90)
    expected, found = index.index.search(queries, 90)
    np.testing.assert_array_equal(similarities, expected)
    np.testing.assert_array_equal(rows, found)
    # Some lists are short of so many rows.
    assert (rows < 0).any() == (probes == 1)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_added_rows_are_found_under_the_next_numbers(kind: str) -> None:
    world = World(3)
    base, more = world.draw(2000)["text"], world.draw(50)["text"]
    settings = IndexSettings(index=kind, lists=20, probes=20)
    index = EmbeddingIndex.build(base, settings)
    index.add(more)
    _, rows = index.search(more, 1)
    np.testing.assert_array_equal(rows[:, 0], 2000 + np.arange(50))


@pytest.mark.parametrize("kind", ["flat", "ivf", "ivf_pq"])
def test_a_saved_index_answers_alike(kind: str, tmp_path: Path) -> None:
    base = World(4, dimensions=(16, 16)).draw(3000)["image"]
    index = EmbeddingIndex.build(base, IndexSettings(index=kind))
    index.save(tmp_path / "image")
    loaded = EmbeddingIndex.load(tmp_path / "image")
    np.testing.assert_array_equal(loaded.search(base[:50], 10)[1], index.search(base[:50], 10)[1])
    assert loaded.evidence == index.evidence


def test_k_is_clamped_to_the_size() -> None:
    base = World(5).draw(3)["image"]
    assert EmbeddingIndex.build(base).search(base, 10)[1].shape == (3, 3)


def test_queries_of_another_dimension_are_refused() -> None:
    index = EmbeddingIndex.build(World(5).draw(30)["image"])
    with pytest.raises(InvalidEmbedding, match=r"\[n, 48\]"):
        index.search(np.ones((2, 47), np.float32), 3)


@pytest.mark.parametrize("kind", ["flat", "ivf", "ivf_sq8", "ivf_pq"])
def test_rows_that_leave_are_gone_and_the_others_move_up(kind: str, tmp_path: Path) -> None:
    base = World(6, dimensions=(16, 16)).draw(2000)["image"]
    settings = IndexSettings(index=kind, lists=20, probes=20)
    EmbeddingIndex.build(base, settings).save(tmp_path / "image")
    index = EmbeddingIndex.load(tmp_path / "image")
    gone = np.array([0, 7, 8, 1000, 1999])
    left = np.delete(base, gone, axis=0)
    index.remove(gone)
    index.add(base[:1])
    assert len(index) == 1996
    index.save(tmp_path / "image")
    similarities, rows = EmbeddingIndex.load(tmp_path / "image").search(left[::50], 5)
    now = np.concatenate([left, base[:1]])
    found = np.einsum("nd,nkd->nk", left[::50], now[rows])
    # Each row number is of the row that the similarity is of, as far as its codes are.
    np.testing.assert_allclose(similarities, found, atol={"ivf_pq": 0.2}.get(kind, 2e-2))
    if kind != "ivf_pq":
        np.testing.assert_array_equal(rows[:, 0], np.arange(0, 1995, 50))


@pytest.mark.parametrize(
    ("kind", "asked", "rows", "expected"),
    [
        ("ivf", "ivf", 2000, False),
        ("ivf", "ivf", 2001, True),
        ("ivf", "ivf", 499, True),
        ("flat", "auto", 50_000, False),
        ("flat", "auto", 50_001, True),
        ("flat", "flat", 10**6, False),
        ("flat", "ivf_pq", 300, True),
    ],
)
def test_an_index_is_outgrown_by_twice_its_rows_or_by_its_kind(
    kind: str, asked: str, rows: int, expected: bool
) -> None:
    described = {"kind": kind, "rows": 1000} | ({} if kind == "flat" else {"trained_for": 1000})
    assert outgrown(described, IndexSettings(index=asked), rows) is expected


def test_too_few_rows_for_product_codes_are_searched_flat_and_the_evidence_says_so() -> None:
    base = World(7).draw(255)["image"]
    index = EmbeddingIndex.build(base, IndexSettings(index="ivf_pq"))
    assert index.describe() == {
        "kind": "flat",
        "rows": 255,
        "asked_for": "ivf_pq",
        "takes_rows": 256,
    }
    np.testing.assert_array_equal(index.search(base, 1)[1][:, 0], np.arange(255))
    enough = EmbeddingIndex.build(World(7).draw(256)["image"], IndexSettings(index="ivf_pq"))
    assert enough.kind == "ivf_pq"


def test_probes_are_tuned_by_the_queries_that_will_come() -> None:
    world = World(2, topics=60, dimensions=(16, 16))
    pairs, unseen = world.draw(4000), world.draw(300)
    # The other modality's rows, brought over roughly: they lie beside the rows, not among them.
    turn = np.linalg.lstsq(pairs["text"], pairs["image"], rcond=None)[0]
    strangers = normalise(unseen["text"] @ turn + 0.25)
    settings = IndexSettings(index="ivf")
    truth = brute_force(strangers, pairs["image"], 10)

    def recall(index: EmbeddingIndex) -> float:
        rows = index.search(strangers, 10)[1]
        return float(
            np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, rows, strict=True)])
        )

    by_rows = EmbeddingIndex.build(pairs["image"], settings)
    queries = normalise(pairs["text"][:256] @ turn + 0.25)
    by_queries = EmbeddingIndex.build(pairs["image"], settings, queries=queries)
    assert recall(by_rows) < 0.9 < 0.94 < recall(by_queries)
    assert by_queries.evidence["probes"] > by_rows.evidence["probes"]


def test_a_query_that_is_a_row_itself_does_not_count_for_finding_itself() -> None:
    # Rows without neighbours: but for itself, a row finds what chance puts in its list.
    rows = normalise(np.random.default_rng(0).standard_normal((3000, 64)))
    index = EmbeddingIndex.build(rows, IndexSettings(index="ivf"))
    alone = index.evidence["recall_at_10"]["1"]
    index.index.nprobe = 1
    truth, found = brute_force(rows[:300], rows, 10), index.search(rows[:300], 10)[1]
    others = [np.isin(a[1:], b).mean() for a, b in zip(truth, found, strict=True)]
    assert alone == pytest.approx(np.mean(others), abs=0.05)
