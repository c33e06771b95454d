"""Generated images against the hidden ones: Fréchet distance and NIQE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from selection.niqe import NiqeModel, niqe


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float | None:
    """Fréchet distance of two sets of features, seen as Gaussians (Heusel et al. 2017).

    ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), on the features of whichever encoder is handed
    in: values of different encoders do not compare, nor do those of sets of different sizes.

    Parameters
    ----------
    a, b : features [n, d] and [m, d]

    Returns
    -------
    float or None
        None with fewer than 2 d rows on a side: covariances would say little.
    """
    if min(len(a), len(b)) < 2 * a.shape[1]:
        return None
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariances = [np.cov(side, rowvar=False) for side in (a, b)]
    # The eigenvalues of Σ_a Σ_b are real and not negative, and the trace of a root is their sum.
    values = np.linalg.eigvals(covariances[0] @ covariances[1])
    root = np.sqrt(np.clip(values.real, 0, None)).sum()
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root)


def mean_niqe(images: Sequence[Any], model: NiqeModel | None) -> float | None:
    """Mean NIQE of the images that are large and structured enough for it; None without any."""
    values = niqe(images, model) if len(images) else np.zeros(0)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
