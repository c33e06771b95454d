"""faiss and torch on a GPU, and without one where one was asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from generators.device import resolve_device as generators_device
from kb import device as devices
from kb.device import exact_products, resolve_device
from kb.filtering import ClusterFilter
from kb.filtering.clusters import k_means
from kb.index import EmbeddingIndex
from kb.index.kinds import IndexSettings
from kb.index.neighbours import top_k
from kb.knowledge_base import KnowledgeBase
from kb.pairs import Pairs
from pipeline.knowledge.standing import StandingKnowledge
from selection.settings import ScoringSettings
from tests.kb.worlds import World, quick

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or faiss.get_num_gpus() == 0, reason="needs a GPU"
)
needs_none = pytest.mark.skipif(torch.cuda.is_available(), reason="is about having no GPU")

Moves = list[tuple[int, bool]]
# Number of the GPU of every exact search, with the fixture `moves`.
compared_on: list[int] = []


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> Iterator[Moves]:
    """Two GPUs that are the CPU: number and half precision of every index that went to one."""
    seen: Moves = []

    def moved(resources: object, number: int, index: Any, options: Any) -> Any:
        seen.append((number, options.useFloat16))
        return faiss.clone_index(index)

    def compared(resources: object, *arguments: Any, device: int, **options: Any) -> Any:
        compared_on.append(device)
        return faiss.knn(*arguments, **options)

    compared_on.clear()
    monkeypatch.setattr(faiss, "knn_gpu", compared, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", moved)
    monkeypatch.setattr(devices, "faiss_resources", lambda: None)
    monkeypatch.setattr("kb.index.embedding_index.resolve_device", lambda device: device)
    yield seen


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without room for any index."""

    def refuse(*_: object) -> None:
        raise RuntimeError("Error in StandardGpuResources:\nalloc fail: cudaMalloc error 2")

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", refuse)
    monkeypatch.setattr(devices, "faiss_resources", lambda: None)
    monkeypatch.setattr("kb.index.embedding_index.resolve_device", lambda device: device)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_an_index_without_room_on_the_gpu_is_searched_on_the_cpu_with_a_warning(
    kind: str, full: None, caplog: pytest.LogCaptureFixture
) -> None:
    base = World(0).draw(1000)["image"]
    settings = IndexSettings(index=kind, probes=3)
    expected = EmbeddingIndex.build(base, settings).search(base[:20], 5)[1]
    with caplog.at_level(logging.WARNING):
        index = EmbeddingIndex.build(base, settings, device="cuda")
        found = index.search(base[:20], 5)[1]
    np.testing.assert_array_equal(found, expected)
    assert "1000 rows stays on the CPU, it does not go to cuda: alloc fail" in caplog.text
    caplog.clear()
    index.search(base[:20], 5)
    assert not caplog.records


@pytest.mark.parametrize(("device", "number"), [("cuda", 0), ("cuda:1", 1)])
@pytest.mark.parametrize("kind", ["flat", "ivf", "ivf_sq8", "ivf_pq"])
def test_faiss_trains_and_searches_on_torchs_gpu_and_in_half_precision_only_to_score_again(
    kind: str, device: str, number: int, moves: Moves
) -> None:
    base = World(0, dimensions=(16, 16)).draw(2000)["image"]
    index = EmbeddingIndex.build(base, IndexSettings(index=kind), device=device)
    index.search(base[:5], 3)
    index.search(base[:5], 3)
    # The centroids while they are learnt, and the index.
    assert moves == [(number, False)] * (kind != "flat") + [(number, kind == "ivf_pq")]
    expected = EmbeddingIndex.build(base, IndexSettings(index=kind)).search(base[:5], 3)
    np.testing.assert_array_equal(index.search(base[:5], 3)[1], expected[1])


def test_a_gpu_that_is_not_there_leaves_faiss_on_the_cpu(moves: Moves) -> None:
    base = World(0).draw(100)["image"]
    EmbeddingIndex.build(base, device="cuda:2").search(base, 3)
    assert moves == []


@pytest.mark.parametrize(("k", "probes", "on_cpu"), [(2048, 5, False), (2049, 5, True)])
def test_what_faiss_cannot_select_on_a_gpu_it_selects_on_the_cpu(
    k: int, probes: int, on_cpu: bool, moves: Moves
) -> None:
    base = World(0, dimensions=(8, 8)).draw(3000)["image"]
    index = EmbeddingIndex.build(base, IndexSettings(index="ivf", probes=probes), device="cuda")
    moves.clear()
    assert index.search(base[:3], k)[1].shape == (3, k)
    assert (moves == []) is on_cpu


def test_so_many_probes_as_no_gpu_takes_are_the_cpus(moves: Moves) -> None:
    base = World(0, dimensions=(8, 8)).draw(3000)["image"]
    settings = IndexSettings(index="ivf", lists=2500, probes=2100, points_per_list=1)
    index = EmbeddingIndex.build(base, settings, device="cuda")
    moves.clear()
    index.search(base[:3], 3)
    assert moves == []


def test_clusters_are_found_on_torchs_gpu(moves: Moves) -> None:
    rows = World(0).draw(500)["image"]
    centroids = k_means(rows, 5, 0, "cuda:1")
    assert moves == [(1, False)]
    np.testing.assert_allclose(centroids, k_means(rows, 5, 0, "cpu"), atol=1e-6)


def test_the_filter_compares_centroids_where_its_other_products_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kb.filtering import clusters

    asked: list[str] = []
    top_k = clusters.top_k

    def watched(*arguments: Any, device: str = "cpu") -> Any:
        asked.append(device)
        return top_k(*arguments)

    monkeypatch.setattr(clusters, "top_k", watched)
    monkeypatch.setattr("kb.filtering.cluster_filter.resolve_device", lambda device: "elsewhere")
    monkeypatch.setattr("kb.filtering.cluster_filter.contrast", lambda rows, *_: rows[:, 0])
    rows = World(0).draw(200)["image"]
    ClusterFilter(device="cuda").fit(rows).predict(rows)
    assert asked and set(asked) == {"elsewhere"}


@pytest.mark.parametrize("setting", ["tf32", "ieee", "none"])
def test_products_are_exact_whatever_precision_was_set_and_it_is_set_again(setting: str) -> None:
    matmul = torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("torch has the older flag alone")
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = setting
        with exact_products():
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == setting
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize(
    ("device", "k", "numbers"), [("cuda:1", 7, [1]), ("cuda", 2049, []), ("cpu", 7, [])]
)
def test_exact_neighbours_are_found_on_torchs_gpu_where_faiss_can_select_so_many(
    device: str, k: int, numbers: list[int], moves: Moves
) -> None:
    rows = World(0).draw(2500)["image"]
    found = top_k(rows[:20], rows, k, device=device)
    assert compared_on == numbers
    np.testing.assert_array_equal(found[1], top_k(rows[:20], rows, k)[1])


def test_while_a_generator_has_the_gpu_the_base_is_searched_on_the_cpu(
    tmp_path: Path,
    sides: tuple[Pairs, list[Pairs]],
    moves: Moves,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    KnowledgeBase.build(tmp_path / "kb", *sides, quick(device="cpu"))
    queries = World(1).draw(10)["image"]
    moves.clear()
    found = KnowledgeBase.load(tmp_path / "kb", device="cuda").retriever.retrieve(queries, "image")
    assert moves, "whoever opens it for the GPU gets it there"
    moves.clear()
    monkeypatch.setattr("pipeline.knowledge.standing.check_device", lambda *_: None)
    standing = StandingKnowledge(tmp_path, None, ScoringSettings(), 0, "cuda")  # type: ignore[arg-type]
    assert standing.base.retriever.retrieve(queries, "image") == found
    assert moves == []


@needs_none
def test_a_base_built_for_a_gpu_opens_without_one_where_the_cpu_is_asked_for(
    tmp_path: Path, sides: tuple[Pairs, list[Pairs]]
) -> None:
    built = KnowledgeBase.build(tmp_path / "kb", *sides, quick())
    manifest = tmp_path / "kb" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"device": "auto"', '"device": "cuda:1"'))
    queries = World(1).draw(10)["image"]
    opened = KnowledgeBase.load(tmp_path / "kb", device="cpu")
    assert opened.manifest["device"] == "cuda:1"
    expected = built.retriever.retrieve(queries, "image")
    assert opened.retriever.retrieve(queries, "image") == expected
    with pytest.raises(ValueError, match="a GPU that torch sees, or auto or cpu; got 'cuda:1'"):
        KnowledgeBase.load(tmp_path / "kb")


@needs_none
def test_a_gpu_that_is_not_there_is_refused_in_the_same_words_by_all_parts() -> None:
    for device in ("auto", "cpu"):
        assert (resolve_device(device), str(generators_device(device))) == ("cpu", "cpu")
    for device in ("cuda", "cuda:3", "gpu"):
        with pytest.raises(ValueError, match=f"^device must be .*; got '{device}'$") as of_kb:
            resolve_device(device)
        with pytest.raises(ValueError, match="^device must be ") as of_generators:
            generators_device(device)
        assert str(of_kb.value) == str(of_generators.value)


@needs_gpu
@pytest.mark.parametrize("kind", ["flat", "ivf", "ivf_sq8", "ivf_pq"])
def test_an_index_on_the_gpu_finds_what_the_one_on_the_cpu_finds(kind: str) -> None:
    world = World(0, topics=60)
    base, queries = world.draw(20_000)["image"], world.draw(200)["image"]
    index = EmbeddingIndex.build(base, IndexSettings(index=kind), device="cuda")
    assert faiss.isGpuIndex(index._searcher(10))
    similarities, rows = index.search(queries, 10)
    index.device = "cpu"
    expected, same = index.search(queries, 10)
    shared = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(rows, same, strict=True)])
    assert shared > (0.7 if kind == "ivf_pq" else 0.99)
    # A tie is a difference of less than 1e-6.
    np.testing.assert_allclose(similarities, expected, atol=1e-2 if kind == "ivf_pq" else 2e-6)


@needs_gpu
def test_exact_neighbours_on_the_gpu_are_those_on_the_cpu() -> None:
    world = World(0, topics=60)
    base, queries = world.draw(20_000)["image"], world.draw(3000)["image"]
    similarities, rows = top_k(queries, base, 10, device="cuda")
    expected, same = top_k(queries, base, 10)
    np.testing.assert_allclose(similarities, expected, atol=2e-6)
    assert (rows == same).mean() > 0.999


@needs_gpu
def test_more_neighbours_than_a_gpu_selects_are_found() -> None:
    base = World(0).draw(5000)["image"]
    index = EmbeddingIndex.build(base, device="cuda")
    assert index.search(base[:3], 3000)[1].shape == (3, 3000)


@needs_gpu
def test_centroids_learnt_on_the_gpu_are_saved_with_the_index(tmp_path: Path) -> None:
    base = World(0).draw(5000)["image"]
    EmbeddingIndex.build(base, IndexSettings(index="ivf"), device="cuda").save(tmp_path / "i")
    index = EmbeddingIndex.load(tmp_path / "i")
    assert np.mean(index.search(base, 1)[1][:, 0] == np.arange(5000)) > 0.95
