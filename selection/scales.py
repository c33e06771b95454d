"""Means and deviations by which a picture's cosine and NIQE are brought to one scale.

Measured on the real halves of the dataset's own pairs, so that :mod:`selection.scoring` may add
the two.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from selection.niqe import NiqeModel, niqe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standard:
    """Mean and deviation by which a figure is standardised."""

    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean) and self.deviation > 0 and np.isfinite(self.deviation)):
            raise ValueError(
                "a standard needs a finite mean and a positive deviation; "
                f"got {self.mean} and {self.deviation}"
            )

    @classmethod
    def of(cls, values: np.ndarray) -> Standard | None:
        """The standard of the finite values [n]; None where they do not vary."""
        finite = np.asarray(values, dtype=np.float64)
        finite = finite[np.isfinite(finite)]
        if len(finite) < 2 or finite.std() < 1e-9:
            return None
        return cls(float(finite.mean()), float(finite.std(ddof=1)))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return (values - self.mean) / self.deviation


@dataclass(frozen=True)
class Standards:
    """Standards of a picture's two figures; None where a figure could not be measured."""

    cosine: Standard | None = None
    niqe: Standard | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            name: None if one is None else {"mean": one.mean, "deviation": one.deviation}
            for name, one in (("cosine", self.cosine), ("niqe", self.niqe))
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Standards:
        """The standards that :meth:`to_dict` wrote."""
        return cls(**{name: None if one is None else Standard(**one) for name, one in data.items()})


def fit_standards(
    embeddings: np.ndarray,
    targets: np.ndarray | None,
    images: Iterable[Any] | None,
    niqe_model: NiqeModel | None = None,
) -> Standards:
    """Measure the standards on the real halves of complete pairs.

    Parameters
    ----------
    embeddings : ndarray of shape [n, d]
        Unit embeddings of the pairs' pictures.
    targets : ndarray of shape [n, d] or None
        Unit pseudo-embeddings, mapped from the pairs' texts; None where the mapping says
        nothing.
    images : iterable of PIL.Image.Image or ndarray, or None
        A sample of the pairs' pictures, whose number need not be n, read one at a time; None
        leaves NIQE out.
    niqe_model : NiqeModel, optional
        The published one by default.
    """
    cosine = quality = None
    if targets is not None:
        if targets.shape != embeddings.shape:
            raise ValueError(
                f"targets must have the shape of embeddings {embeddings.shape}; got {targets.shape}"
            )
        cosine = Standard.of(np.einsum("nd,nd->n", embeddings, targets, dtype=np.float64))
        if cosine is None:
            logger.warning("cosines of the real pictures do not vary: not standardised")
    if images is not None:
        quality = Standard.of(niqe(images, niqe_model))
        if quality is None:
            logger.warning(
                "NIQE cannot be measured on the real pictures (too small, or too few): "
                "pictures are judged by the cosine alone"
            )
    return Standards(cosine, quality)
