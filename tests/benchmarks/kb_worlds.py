"""Worlds to measure retrieval on: photographs, remote sensing and the example, with external pairs of four kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from kb.embeddings import MODALITIES, normalise
from tests.benchmarks.kb_example import Halves, encoded, shifted, some
from tests.benchmarks.photographs import Photographs, photographs

WORLDS = ("photographs", "remote sensing", "example")
EXTERNAL = ("relevant", "mixed", "irrelevant", "shifted")
# Of the pictures' 1,280 directions so many are kept, without which a table takes a day.
DIRECTIONS = 512
RELEVANT, ASKED = 1500, 1000


@dataclass(frozen=True)
class World:
    """Pairs to draw from.

    Attributes
    ----------
    shared_space : bool
        Whether both modalities have one encoder.
    draw : callable
        (kind, internal pairs, seed) to internal pairs, external pairs of that kind, and pairs to
        ask by, none of them twice.
    """

    shared_space: bool
    draw: Callable[[str, int, int], tuple[Halves, Halves, Halves]]


def worlds(paths: dict[str, Path], cache_folder: Path, counts: dict[str, int]) -> dict[str, World]:
    """The example world, and those of the photographs at hand (both, or none)."""
    found = {"example": World(True, lambda *how: _of_example(cache_folder, *how))}
    if paths:
        sets = {name: photographs(path, cache_folder, counts[name]) for name, path in paths.items()}
        sets = reduced(sets)
        for name, data in sets.items():
            (others,) = (other for known, other in sets.items() if known != name)
            found[name] = World(False, lambda *how, d=data, o=others: _of_photographs(d, o, *how))
    return found


def reduced(sets: dict[str, Photographs]) -> dict[str, Photographs]:
    """Pictures by their principal directions, over all sets together and about no mean."""
    squares = sum(data.image.T @ data.image / len(data) for data in sets.values())
    values, vectors = np.linalg.eigh(squares)
    kept = vectors[:, ::-1][:, :DIRECTIONS]
    share = float(values[::-1][:DIRECTIONS].sum() / values.sum())
    print(f"{DIRECTIONS} directions of the pictures keep {share:.3f} of their squared length")
    return {
        name: Photographs(normalise(data.image @ kept), data.sentences)
        for name, data in sets.items()
    }


def _of_photographs(
    data: Photographs, others: Photographs, kind: str, internal: int, seed: int
) -> tuple[Halves, Halves, Halves]:
    generator = np.random.default_rng(seed)
    order, away = generator.permutation(len(data)), generator.permutation(len(others))
    asked = one_sentence(data, order[:ASKED], 0)
    relevant = one_sentence(data, order[ASKED : ASKED + RELEVANT], 4)
    own = one_sentence(data, order[ASKED + RELEVANT :][:internal], 0)
    return own, _external(kind, relevant, one_sentence(others, away[:RELEVANT], 0), seed), asked


def _of_example(
    cache_folder: Path, kind: str, internal: int, seed: int
) -> tuple[Halves, Halves, Halves]:
    target, external, relevant = _example(cache_folder)
    order = np.random.default_rng(seed).permutation(len(target["image"]))
    asked, own = some(target, order[internal:][-ASKED:]), some(target, order[:internal])
    return own, _external(kind, some(external, relevant), some(external, ~relevant), seed), asked


@cache
def _example(cache_folder: Path) -> tuple[Halves, Halves, np.ndarray]:
    target, _ = encoded("target", cache_folder)
    external, columns = encoded("external", cache_folder)
    return target, external, np.array(columns["relevant"], dtype=bool)


def _external(kind: str, relevant: Halves, noise: Halves, seed: int) -> Halves:
    return {
        "relevant": relevant,
        "mixed": {m: np.concatenate([relevant[m], noise[m]]) for m in MODALITIES},
        "irrelevant": noise,
        "shifted": shifted(relevant, seed, 0.6, 0.5),
    }[kind]


def one_sentence(data: Photographs, rows: np.ndarray, sentence: int) -> Halves:
    """Pairs of a picture and one of its sentences."""
    return {"image": data.image[rows], "text": normalise(data.sentences[rows, sentence])}
