"""Synthetic pairs with known structure: two views of common concepts, domains, and noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import special_ortho_group

from kb.embeddings import Modality, normalise
from kb.mapping import MappingSettings
from kb.pairs import Pairs
from kb.recipe import KnowledgeBaseSettings, Recipe
from kb.retrieval import RetrievalSettings


class World:
    """Draws pairs whose halves are noisy linear views of the same concept.

    Concepts lie around `topics` centres in `intrinsic` dimensions; pairs of noise lie around
    centres of their own.
    """

    def __init__(
        self,
        seed: int = 0,
        dimensions: tuple[int, int] = (48, 48),
        intrinsic: int = 12,
        topics: int = 15,
        spread: float = 0.5,
        noise: float = 0.15,
    ) -> None:
        self.generator = np.random.default_rng(seed)
        self.intrinsic = intrinsic
        self.spread = spread
        self.noise = noise
        self.views: dict[Modality, np.ndarray] = {
            "image": self.generator.standard_normal((intrinsic, dimensions[0])) / intrinsic**0.5,
            "text": self.generator.standard_normal((intrinsic, dimensions[1])) / intrinsic**0.5,
        }
        self.topics = self.generator.standard_normal((topics, intrinsic))
        self.strange = self.generator.standard_normal((topics, *dimensions[:1]))
        self.strange_text = self.generator.standard_normal((topics, dimensions[1]))

    def draw(self, count: int) -> dict[Modality, np.ndarray]:
        """Unit embeddings of `count` pairs on the topics."""
        topic = self.generator.integers(0, len(self.topics), count)
        concepts = self.topics[topic]
        concepts = concepts + self.spread * self.generator.standard_normal(concepts.shape)
        out: dict[Modality, np.ndarray] = {}
        for modality, view in self.views.items():
            seen = concepts @ view
            seen += self.noise * self.generator.standard_normal(seen.shape)
            out[modality] = normalise(seen)
        return out

    def draw_noise(self, count: int) -> dict[Modality, np.ndarray]:
        """Unit embeddings of pairs that have nothing to do with the topics."""
        topic = self.generator.integers(0, len(self.topics), count)
        out: dict[Modality, np.ndarray] = {}
        for modality, centres in (("image", self.strange), ("text", self.strange_text)):
            rows = centres[topic]
            rows = rows + self.spread * self.generator.standard_normal(rows.shape)
            out[modality] = normalise(rows)
        return out


def rotated(rows: np.ndarray, seed: int, offset: float = 0.0) -> np.ndarray:
    """Rows turned by a random rotation, moved by a random vector of length `offset`, unit."""
    turn = special_ortho_group.rvs(rows.shape[1], random_state=seed)
    move = np.random.default_rng(seed).standard_normal(rows.shape[1])
    return normalise(rows @ turn + offset * move / np.linalg.norm(move))


def small_turn(dimension: int, angle: float, seed: int = 0) -> np.ndarray:
    """A rotation by at most `angle` radians in each of its planes, [d, d]."""
    from scipy.linalg import expm

    skew = np.random.default_rng(seed).standard_normal((dimension, dimension))
    skew = skew - skew.T
    return expm(skew * angle / np.linalg.norm(skew, 2)).astype(np.float32)


def as_pairs(embeddings: dict[Modality, np.ndarray], source: str, **columns: object) -> Pairs:
    """Pairs with ids made of the source and a number."""
    count = len(embeddings["image"])
    table = pa.table(
        {
            "id": [f"{source}-{number:06d}" for number in range(count)],
            "source": [source] * count,
            **{name: [value] * count for name, value in columns.items()},
        }
    )
    return Pairs(table, embeddings)


def together(*parts: dict[Modality, np.ndarray]) -> dict[Modality, np.ndarray]:
    """The rows of several draws, one after another."""
    return {m: np.concatenate([part[m] for part in parts]) for m in ("image", "text")}


def resident(name: str) -> int:
    """Bytes of a mapped file, by its name, that are resident in this process (Linux)."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line.endswith(name))
    return 1024 * next(int(line.split()[1]) for line in lines[first:] if line.startswith("Rss:"))


def quick(**changes: Any) -> Recipe:
    """A recipe without a network in it, which leaves nothing of the retrieval to be measured."""
    changes.setdefault("mapping", MappingSettings(method="ridge"))
    changes.setdefault("retrieval", RetrievalSettings().decided())
    return Recipe(KnowledgeBaseSettings(**changes))


QUICK = quick()
