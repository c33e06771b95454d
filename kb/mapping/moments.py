"""Sums over pairs that a linear fit needs of them, so that a million pairs need not be held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from kb.embeddings import MODALITIES, Modality, opposite


@dataclass(frozen=True)
class Moments:
    """First and second moments of pairs, uncentred; those of several sets add up.

    Attributes
    ----------
    weight : float
        The number of pairs, or their weights' sum.
    sums : dict
        Per modality float64 [d].
    squares : dict
        Per modality Z^T Z, float64 [d, d].
    products : float64 [d_image, d_text]
        Z_image^T Z_text.
    """

    weight: float
    sums: Mapping[Modality, np.ndarray]
    squares: Mapping[Modality, np.ndarray]
    products: np.ndarray

    @classmethod
    def of(
        cls,
        blocks: Iterable[Mapping[Modality, np.ndarray]],
        dimensions: Mapping[Modality, int],
    ) -> Moments:
        """Those of pairs that come in blocks, per modality rows [n, d]; each block is read once.

        Products within a block are of the block's own precision, their sums of double.
        """
        import torch

        count = 0
        sums = {m: np.zeros(dimensions[m]) for m in MODALITIES}
        squares = {m: np.zeros((dimensions[m], dimensions[m])) for m in MODALITIES}
        products = np.zeros((dimensions["image"], dimensions["text"]))
        for block in blocks:
            count += len(block["image"])
            # numpy's product would leave a thread behind that takes the processor from what follows.
            halves = {m: torch.from_numpy(np.ascontiguousarray(block[m])) for m in MODALITIES}
            for modality, rows in halves.items():
                sums[modality] += block[modality].sum(axis=0, dtype=np.float64)
                squares[modality] += (rows.T @ rows).numpy()
            products += (halves["image"].T @ halves["text"]).numpy()
        return cls(float(count), sums, squares, products)

    def scaled(self, weight: float) -> Moments:
        """Those of the same pairs, each of them with this weight."""
        return Moments(
            weight * self.weight,
            {m: weight * total for m, total in self.sums.items()},
            {m: weight * square for m, square in self.squares.items()},
            weight * self.products,
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.weight + other.weight,
            {m: self.sums[m] + other.sums[m] for m in MODALITIES},
            {m: self.squares[m] + other.squares[m] for m in MODALITIES},
            self.products + other.products,
        )

    def mean(self, modality: Modality) -> np.ndarray:
        """float64 [d]."""
        return np.asarray(self.sums[modality] / self.weight)

    def scatter(self, source: Modality) -> tuple[np.ndarray, np.ndarray]:
        """Centred X^T X and X^T Y for a fit from `source`, float64 [d, d] and [d, d of the other]."""
        mean, goal = self.mean(source), self.mean(opposite(source))
        products = self.products if source == "image" else self.products.T
        return (
            self.squares[source] - self.weight * np.outer(mean, mean),
            products - self.weight * np.outer(mean, goal),
        )
