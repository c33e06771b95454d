"""Downstream worth: what a model learns from completed data, judged on untouched pairs.

Every variant gets the same start, the same number of steps of the same size, and the same seeds; only
the data differ. A variant with fewer pairs sees them more often.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.evaluation.protocol.masked import Pairs
from pipeline.evaluation.results.ranked import Ranks, ranks
from pipeline.storage.digests import digest
from pipeline.storage.errors import ConfigError
from pipeline.storage.files import read_json, write_whole

# Pairs to train on, without which there is no contrast.
FEWEST_PAIRS = 2
# CLIP's bound on the inverse temperature (Radford et al. 2021, section 2.5).
MOST_SCALE = 100.0


class Schedule(Protocol):
    """The settings that a learning rate follows from."""

    steps: int
    warmup: float


class Untouched:
    """Pairs to test on: each picture and each text once, and which are true of which.

    Rows of one picture are one picture with all their captions, and a text that several pictures
    have is true of each of them.

    Parameters
    ----------
    pairs : Pairs
    names : sequence of str
        Of the rows; a picture has that of its first.

    Attributes
    ----------
    images : list of bytes
    texts : list of str
    names : list of str
        Of the pictures.
    true : bool [pictures, texts]
    """

    def __init__(self, pairs: Pairs, names: Sequence[str]) -> None:
        images: dict[bytes, int] = {}
        texts: dict[str, int] = {}
        self.names: list[str] = []
        captions = set()
        for image, own, name in zip(pairs.images, pairs.texts, names, strict=True):
            if image not in images:
                self.names.append(name)
            picture = images.setdefault(image, len(images))
            captions |= {(picture, texts.setdefault(text, len(texts))) for text in own}
        self.images, self.texts = list(images), list(texts)
        # Which picture each caption is of, and which text it is.
        self._pictures, self._texts = np.array(sorted(captions), dtype=np.int64).T
        self.true = np.zeros((len(images), len(texts)), dtype=bool)
        self.true[self._pictures, self._texts] = True

    def digest(self) -> str:
        """A digest of the content, in order."""
        return digest(*self.images, *self.texts, self.true.tobytes())

    def rank(self, images: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ranks of what is true of each picture and of each caption, by unit embeddings [·, d].

        Raises
        ------
        FloatingPointError
            An embedding is not finite.
        """
        similarity = images @ texts.T
        of_texts = ranks(similarity.T, self.true.T)
        return ranks(similarity, self.true), of_texts[self._texts]

    def ranks(self, found: Sequence[tuple[np.ndarray, np.ndarray]]) -> Ranks:
        """What `rank` has found with each seed, together."""
        image_to_text, text_to_image = (
            np.asarray(half, dtype=np.int64) for half in zip(*found, strict=True)
        )
        return Ranks(image_to_text, text_to_image, self._pictures)


class Downstream(ABC):
    """Learns from pairs and tests; what was learned before is read from `folder`.

    Parameters
    ----------
    identity : dict
        What a result depends on besides the pairs and the seed.
    test : Untouched
    folder : Path
        Where results are kept, by content.
    """

    def __init__(self, identity: dict[str, Any], test: Untouched, folder: Path) -> None:
        self.test = test
        self.folder = folder
        self._common = digest(json.dumps(identity, sort_keys=True), test.digest())

    def usable(self, train: Pairs) -> Pairs:
        """Those of the pairs that can be learned from."""
        return train

    @abstractmethod
    def prepare(self, train: Pairs) -> Any:
        """The pairs as `learn` takes them, whatever the seed."""

    @abstractmethod
    def learn(
        self, prepared: Any, seed: int, steps: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Learn once; unit embeddings of the test pictures and of the test texts.

        `steps` ends it early, to time it.
        """

    @abstractmethod
    def untrained(self) -> Ranks | None:
        """Ranks before anything was learned; None where that compares nothing."""

    def held(self, train: Pairs, seeds: int) -> int:
        """How many of the seeds were learned before."""
        return sum(self._path(train, seed).is_file() for seed in range(seeds))

    def measure(self, train: Pairs, seeds: int) -> Ranks:
        """Learn from `train` once a seed, and rank the test pairs.

        Raises
        ------
        ConfigError
            Fewer than two pairs to train on, or the training diverged.
        """
        if len(train) < FEWEST_PAIRS:
            raise ConfigError(
                f"evaluation: training needs at least {FEWEST_PAIRS} pairs that can be read;"
                f" got {len(train)}"
            )
        prepared = None
        found: list[Any] = []
        for seed in range(seeds):
            path = self._path(train, seed)
            if not path.is_file():
                prepared = self.prepare(train) if prepared is None else prepared
                try:
                    both = self.test.rank(*self.learn(prepared, seed))
                except FloatingPointError:
                    raise ConfigError(
                        "evaluation.downstream.learning_rate: the training diverged; lower it"
                    ) from None
                write_whole(path, json.dumps([one.tolist() for one in both]))
            found.append(read_json(path))
        return self.test.ranks(found)

    def _path(self, train: Pairs, seed: int) -> Path:
        return self.folder / f"{digest(self._common, train.digest(), str(seed))}.json"


def share_of_rate(step: int, settings: Schedule) -> float:
    """Share of the highest learning rate: a linear rise, then half a cosine down."""
    rise = max(1, round(settings.warmup * settings.steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, settings.steps - rise)))


class Batches:
    """Row numbers in an order of a seed's own, as often as they are asked for.

    Parameters
    ----------
    rows, size : int
        Rows of all, and of a batch; with fewer rows a batch has them all.
    generator : numpy.random.Generator
    """

    def __init__(self, rows: int, size: int, generator: np.random.Generator) -> None:
        self.rows = rows
        self.size = min(size, rows)
        self._generator = generator
        self._left = np.zeros(0, dtype=np.int64)

    def draw(self) -> np.ndarray:
        """The next batch; what is left of a round and is too little for one is skipped."""
        if len(self._left) < self.size:
            self._left = self._generator.permutation(self.rows)
        rows, self._left = self._left[: self.size], self._left[self.size :]
        return rows


def contrast(image: Any, text: Any, scale: Any) -> Any:
    """The symmetric contrastive loss of a batch of unit embeddings (Radford et al. 2021, figure 3).

    Parameters
    ----------
    image, text : torch.Tensor [n, d]
    scale : torch.Tensor
        Logarithm of the inverse temperature.
    """
    import torch
    from torch.nn import functional

    logits = scale.exp().clamp(max=MOST_SCALE) * image @ text.T
    own = torch.arange(len(image), device=logits.device)
    return functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
