"""Memory of a knowledge base: not that of the files it is made from."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from kb.embeddings import (
    MODALITIES,
    EmbeddingWriter,
    Modality,
    Rows,
    Subset,
    normalise,
    open_embeddings,
    release,
    take,
)
from kb.index import EmbeddingIndex
from kb.index.kinds import IndexSettings
from kb.knowledge_base import KnowledgeBase
from kb.pairs import Pairs
from kb.retrieval import FusionRetriever, RetrievalSettings
from kb.retrieval.leave_one_out import LeaveOneOut, Point
from tests.kb.worlds import World, as_pairs, quick, resident

LINUX = pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="Linux tells what is resident"
)


def on_disk(folder: Path, pairs: dict[Modality, np.ndarray], name: str = "e") -> Pairs:
    """Pairs whose embeddings are read from files."""
    folder.mkdir(exist_ok=True)
    for modality in MODALITIES:
        with EmbeddingWriter(folder / f"{modality}.npy", pairs[modality].shape[1]) as writer:
            writer.append(pairs[modality])
    return as_pairs({m: open_embeddings(folder / f"{m}.npy") for m in MODALITIES}, name)


@LINUX
def test_digests_of_pairs_leave_no_pages_behind(tmp_path: Path) -> None:
    pairs = on_disk(tmp_path, World(0, dimensions=(256, 256)).draw(20_000))
    pairs.digests  # noqa: B018
    assert resident("/image.npy") + resident("/text.npy") < 1e6


@LINUX
def test_a_sample_holds_only_a_part_of_the_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = on_disk(tmp_path, World(0, dimensions=(256, 256)).draw(60_000))
    embeddings = pairs.embeddings["image"]
    rows = np.random.default_rng(0).permutation(60_000)[:8000]
    expected = normalise(np.array(embeddings)[rows])
    release(embeddings)
    seen: list[int] = []

    def watched(array: Rows) -> None:
        seen.append(resident("/image.npy"))
        release(array)

    monkeypatch.setattr("kb.embeddings.release", watched)
    np.testing.assert_array_equal(take(Subset(embeddings, np.arange(60_000)), rows), expected)
    assert resident("/image.npy") == 0
    assert max(seen) < (tmp_path / "image.npy").stat().st_size / 4


@LINUX
def test_choosing_k_maps_no_pages_of_the_embedding_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(0, dimensions=(512, 512))
    pairs = on_disk(tmp_path, world.draw(30_000))
    indexes = {
        m: EmbeddingIndex.build(pairs.embeddings[m], IndexSettings(index="ivf", lists=50, probes=1))
        for m in MODALITIES
    }
    held = {m: np.array(pairs.embeddings[m]) for m in MODALITIES}
    for embeddings in pairs.embeddings.values():
        release(embeddings)
    seen: list[int] = []
    similarities = FusionRetriever.similarities

    def watched(self: FusionRetriever, *arguments: object) -> np.ndarray:
        found = similarities(self, *arguments)  # type: ignore[arg-type]
        seen.append(resident("/image.npy") + resident("/text.npy"))
        return found

    monkeypatch.setattr(FusionRetriever, "similarities", watched)
    retriever = FusionRetriever(
        pairs.embeddings,  # type: ignore[arg-type]
        indexes,
        pairs.table["id"].combine_chunks(),
        settings=RetrievalSettings(),
    )
    queries = world.draw(500)
    ids = [f"query-{n}" for n in range(500)]
    guesses = {"image": queries["text"], "text": queries["image"]}
    points = [Point("fusion", 5, 0.5), Point("fusion", 50, 0.5, 0.5), Point("pseudo", 10, np.nan)]

    def measured() -> list[np.ndarray]:
        trials = LeaveOneOut(retriever, queries, ids)
        each = (trials.quality(m, points, guesses[m]) for m in MODALITIES)
        return [quality for by_point in each for quality in by_point.values()]

    found = measured()
    assert max(seen) < 1e6
    retriever.embeddings = held
    for values, again in zip(found, measured(), strict=True):
        np.testing.assert_array_equal(values, again)


def test_a_pair_that_leaves_does_not_bring_all_embeddings_into_memory(tmp_path: Path) -> None:
    peaks = []
    for count in (15_000, 45_000):
        world = World(0)
        internal = as_pairs(world.draw(100), "dataset")
        external = on_disk(tmp_path / str(count), world.draw(count), "web")
        recipe = quick(
            purify=False,
            index=IndexSettings(index="flat"),
            retrieval=RetrievalSettings(k=5, alpha=0.5),
        )
        KnowledgeBase.build(tmp_path / "kb", internal, [external], recipe)
        fewer = external.select(np.arange(1, count))
        tracemalloc.start()
        KnowledgeBase.update(tmp_path / "kb", internal, [fewer], recipe)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 30,000 more pairs have 5.8e6 bytes of embeddings; row numbers and digests remain.
    assert peaks[1] - peaks[0] < 2.5e6
