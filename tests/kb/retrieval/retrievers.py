"""Retrievers over synthetic pairs, and what they should find written out by loops."""

from __future__ import annotations

import numpy as np

from kb.embeddings import MODALITIES, Modality, opposite
from kb.index import EmbeddingIndex
from kb.mapping import CrossModalMapping, MappingSettings
from kb.retrieval import FusionRetriever, RetrievalSettings
from tests.kb.worlds import World


def make(
    settings: RetrievalSettings,
    seed: int = 0,
    count: int = 300,
    dimensions: tuple[int, int] = (48, 48),
    shared_space: bool = True,
    method: str = "ridge",
) -> tuple[World, dict[Modality, np.ndarray], FusionRetriever]:
    world = World(seed, dimensions=dimensions)
    pairs = world.draw(count)
    mapping = CrossModalMapping(MappingSettings(method=method)).fit(pairs["image"], pairs["text"])
    indexes = {m: EmbeddingIndex.build(pairs[m]) for m in MODALITIES}
    ids = [f"p{number:04d}" for number in range(count)]
    return world, pairs, FusionRetriever(pairs, indexes, ids, mapping, settings, shared_space)


def fusion_by_loops(
    query: np.ndarray,
    pseudo: np.ndarray,
    pairs: dict[Modality, np.ndarray],
    modality: Modality,
    k: int,
    alpha: float,
    without: int | None = None,
) -> list[tuple[int, float]]:
    """Both stages written from the formulas, for one query."""
    intra = {row: float(query @ z) for row, z in enumerate(pairs[modality]) if row != without}
    nearest = sorted(intra, key=lambda row: (-intra[row], row))[:k]
    score = {
        row: alpha * intra[row] + (1 - alpha) * float(pseudo @ pairs[opposite(modality)][row])
        for row in nearest
    }
    return [(row, score[row]) for row in sorted(score, key=lambda row: (-score[row], row))]
