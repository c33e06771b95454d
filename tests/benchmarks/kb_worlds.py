"""Worlds to measure retrieval on: photographs, remote sensing and the example, with external pairs of four kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from kb.embeddings import MODALITIES, normalise
from tests.benchmarks.kb_example import Halves, encoded, shifted, some
from tests.benchmarks.photographs import SENTENCES, Photographs, photographs

WORLDS = ("photographs", "remote sensing", "example")
EXTERNAL = ("relevant", "mixed", "irrelevant", "shifted")
# Of the pictures' 1,280 directions so many are kept, without which a table takes a day.
DIRECTIONS = 256
RELEVANT, ASKED = 800, 600


@dataclass(frozen=True)
class Captioned:
    """Pairs, and in words the text of each: the captions that it has, the embedded one first."""

    halves: Halves
    captions: list[list[str]]

    def __add__(self, other: Captioned) -> Captioned:
        both = {m: np.concatenate([self.halves[m], other.halves[m]]) for m in MODALITIES}
        return Captioned(both, self.captions + other.captions)


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
    draw: Callable[[str, int, int], tuple[Captioned, Captioned, Captioned]]


@dataclass(frozen=True)
class Pictures:
    """Photographs with the words of their sentences, [n][5]."""

    data: Photographs
    captions: list[list[str]]

    def one_sentence(self, rows: np.ndarray, sentence: int) -> Captioned:
        """Pairs of a picture and one of its sentences."""
        text = normalise(self.data.sentences[rows, sentence])
        captions = [self.captions[row] for row in rows]
        ordered = [[own[sentence], *own[:sentence], *own[sentence + 1 :]] for own in captions]
        return Captioned({"image": self.data.image[rows], "text": text}, ordered)


def worlds(paths: dict[str, Path], cache_folder: Path, counts: dict[str, int]) -> dict[str, World]:
    """The example world, and those of the photographs at hand (both, or none)."""
    found = {"example": World(True, lambda *how: _of_example(cache_folder, *how))}
    if paths:
        read = {name: photographs(path, cache_folder, counts[name]) for name, path in paths.items()}
        sets = {
            name: Pictures(data, _captions(paths[name], counts[name]))
            for name, data in reduced(read).items()
        }
        for name, data in sets.items():
            (others,) = (other for known, other in sets.items() if known != name)
            found[name] = World(False, lambda *how, d=data, o=others: _of_photographs(d, o, *how))
    return found


def _captions(parquet: Path, count: int) -> list[list[str]]:
    columns = pq.read_table(parquet, columns=["captions"])["captions"][:count].to_pylist()
    return [(own * SENTENCES)[:SENTENCES] for own in columns]


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
    data: Pictures, others: Pictures, kind: str, internal: int, seed: int
) -> tuple[Captioned, Captioned, Captioned]:
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(data.captions))
    away = generator.permutation(len(others.captions))
    asked = data.one_sentence(order[:ASKED], 0)
    relevant = data.one_sentence(order[ASKED : ASKED + RELEVANT], 4)
    own = data.one_sentence(order[ASKED + RELEVANT :][:internal], 0)
    return own, _external(kind, relevant, others.one_sentence(away[:RELEVANT], 0), seed), asked


def _of_example(
    cache_folder: Path, kind: str, internal: int, seed: int
) -> tuple[Captioned, Captioned, Captioned]:
    target, external, relevant = _example(cache_folder)
    order = np.random.default_rng(seed).permutation(len(target.captions))
    asked, own = _some(target, order[internal:][-ASKED:]), _some(target, order[:internal])
    noise = _some(external, np.flatnonzero(~relevant))
    return own, _external(kind, _some(external, np.flatnonzero(relevant)), noise, seed), asked


@cache
def _example(cache_folder: Path) -> tuple[Captioned, Captioned, np.ndarray]:
    target, words = encoded("target", cache_folder)
    external, columns = encoded("external", cache_folder)
    return (
        Captioned(target, [[text] for text in words["text"]]),
        Captioned(external, [[text] for text in columns["text"]]),
        np.array(columns["relevant"], dtype=bool),
    )


def _some(pairs: Captioned, rows: np.ndarray) -> Captioned:
    return Captioned(some(pairs.halves, rows), [pairs.captions[row] for row in rows])


def _external(kind: str, relevant: Captioned, noise: Captioned, seed: int) -> Captioned:
    if kind == "shifted":
        return Captioned(shifted(relevant.halves, seed, 0.6, 0.5), relevant.captions)
    return {"relevant": relevant, "mixed": relevant + noise, "irrelevant": noise}[kind]
