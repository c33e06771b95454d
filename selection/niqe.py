"""NIQE, the natural image quality evaluator: how far a picture's statistics lie from nature's.

The quality term of the image score (see :mod:`selection.scoring`). Written from Mittal,
Soundararajan and Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE Signal
Processing Letters 20 (2013); lower is better. The published pristine model lies in
``niqe_pristine.npz``, its source and licence in ``NIQE_PARAMETERS.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from scipy.special import gammaln

from selection.luma import block_statistics, half_size, luma, normalised_contrast

FEATURES = 36
# Of a larger picture its middle stands for it: blocks say nothing of where they lie.
MAX_PIXELS = 1 << 24
_SHAPES = np.arange(0.2, 10.001, 0.001)


class TooFewBlocks(ValueError):
    """Pictures that are too few, too small or too flat to fit a NIQE model on."""


@lru_cache(maxsize=1)
def _shape_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per shape: Γ(2/α)²/(Γ(1/α)Γ(3/α)), √(Γ(1/α)/Γ(3/α)) and Γ(2/α)/Γ(1/α)."""
    one, two, three = (gammaln(n / _SHAPES) for n in (1.0, 2.0, 3.0))
    return np.exp(2 * two - one - three), np.exp((one - three) / 2), np.exp(two - one)


def fit_aggd(
    count: np.ndarray,
    negatives: np.ndarray,
    positives: np.ndarray,
    absolute: np.ndarray,
    negative_squares: np.ndarray,
    positive_squares: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Asymmetric generalised Gaussians by moment matching (Lasmar et al. 2009), from sums.

    Parameters
    ----------
    count, negatives, positives : ndarray
        How many values each sample has, and how many of them lie below and above zero.
    absolute : ndarray
        Sums of the absolute values.
    negative_squares, positive_squares : ndarray
        Sums of squares of the values below and above zero.

    Returns
    -------
    shape, left, right, mean : tuple of ndarray
        α, β_l, β_r and η = (β_r − β_l) Γ(2/α)/Γ(1/α), all of the input's shape; NaN where one
        side of a sample has no values.
    """
    ratios, scales, means = _shape_table()
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.sqrt(negative_squares / negatives)
        right = np.sqrt(positive_squares / positives)
        gamma = left / right
        plain = absolute**2 / (count * (negative_squares + positive_squares))
        ratio = plain * (gamma**3 + 1) * (gamma + 1) / (gamma**2 + 1) ** 2
    # The ratio grows with α, so the nearest entry of the table is found by bisection.
    upper = np.clip(np.searchsorted(ratios, np.nan_to_num(ratio)), 1, len(ratios) - 1)
    nearest = upper - (ratio - ratios[upper - 1] <= ratios[upper] - ratio)
    left, right = left * scales[nearest], right * scales[nearest]
    shape = np.where(np.isfinite(ratio), _SHAPES[nearest], np.nan)
    return shape, left, right, (right - left) * means[nearest]


def niqe_features(image: Any, block: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """The 36 natural scene statistics of every block of a picture.

    Parameters
    ----------
    image : PIL.Image.Image or ndarray
        A picture; arrays as :func:`selection.luma.luma` takes them.
    block : int
        Side of a block in pixels; even.

    Returns
    -------
    features : ndarray of shape [blocks, 36]
        18 at full and 18 at half size; rows of flat blocks hold NaN. No rows where the picture
        is smaller than a block.
    sharpness : ndarray of shape [blocks]
        Mean local deviation of a block at full size, in luma levels.
    """
    if block < 16 or block % 2:
        raise ValueError(f"block must be an even number of at least 16; got {block}")
    image = _middle(image, block)
    if image is None:
        return np.empty((0, FEATURES)), np.empty(0)
    plane = luma(image)
    height, width = (side // block * block for side in plane.shape)
    plane = plane[:height, :width]
    columns: list[np.ndarray] = []
    sharpness = np.empty(0)
    for scale in (1, 2):
        contrast, deviation = normalised_contrast(plane)
        side = block // scale
        if scale == 1:
            tiles = deviation.reshape(height // side, side, width // side, side)
            sharpness = tiles.mean(axis=(1, 3), dtype=np.float64).ravel()
            plane = half_size(plane)
        sums = block_statistics(contrast, side)
        shape, left, right, mean = fit_aggd(*np.moveaxis(sums, -1, 0))
        columns += [shape[:, 0], (left[:, 0] + right[:, 0]) / 2]
        for shift in range(1, 5):
            columns += [shape[:, shift], mean[:, shift], left[:, shift], right[:, shift]]
    return np.stack(columns, axis=1), sharpness


def _middle(image: Any, block: int) -> Any:
    """The middle of a picture that is larger than `MAX_PIXELS`; None if it has no whole block."""
    height, width = np.shape(image)[:2] if isinstance(image, np.ndarray) else image.size[::-1]
    if min(height, width) < block:
        return None
    if height * width <= MAX_PIXELS:
        return image
    share = (MAX_PIXELS / (height * width)) ** 0.5
    rows = min(height, max(block, int(height * share)))
    columns = min(width, max(block, MAX_PIXELS // rows))
    rows = min(rows, MAX_PIXELS // columns)
    top, left = (height - rows) // 2, (width - columns) // 2
    if isinstance(image, np.ndarray):
        return image[top : top + rows, left : left + columns]
    return image.crop((left, top, left + columns, top + rows))


@dataclass(frozen=True, eq=False)
class NiqeModel:
    """The Gaussian of natural blocks that pictures are compared with.

    Attributes
    ----------
    mean : ndarray of shape [36]
    covariance : ndarray of shape [36, 36]
    block : int
        Side in pixels of the blocks that it was fitted on.
    """

    mean: np.ndarray
    covariance: np.ndarray
    block: int = 96

    @classmethod
    def published(cls) -> NiqeModel:
        """The pristine model of Mittal et al., fitted on 125 natural photographs, blocks of 96."""
        return _published()

    @classmethod
    def fit(cls, images: Iterable[Any], block: int = 96, sharpness: float = 0.75) -> NiqeModel:
        """Fit a model on pictures that are taken as natural.

        Parameters
        ----------
        images : iterable of PIL.Image.Image or ndarray
            Read one at a time.
        block : int
            Side of a block in pixels; even.
        sharpness : float
            Only blocks above this share of their picture's sharpest block count (the paper's
            0.75): what is out of focus says nothing of nature.

        Raises
        ------
        TooFewBlocks
            If fewer than 37 blocks are left: 36 features then have no covariance.
        """
        kept = []
        for image in images:
            features, sharp = niqe_features(image, block)
            usable = np.isfinite(features).all(axis=1)
            if usable.any():
                kept.append(features[usable & (sharp > sharpness * sharp[usable].max())])
        rows = np.concatenate(kept) if kept else np.empty((0, FEATURES))
        if len(rows) <= FEATURES:
            raise TooFewBlocks(
                f"images must give at least {FEATURES + 1} sharp blocks of {block} pixels "
                f"to fit a NIQE model; got {len(rows)}"
            )
        return cls(rows.mean(axis=0), np.cov(rows, rowvar=False), block)

    def to_dict(self) -> dict[str, Any]:
        """The model in plain numbers, for JSON."""
        return {
            "block": self.block,
            "mean": self.mean.tolist(),
            "covariance": self.covariance.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NiqeModel:
        """The model that :meth:`to_dict` wrote."""
        mean = np.asarray(data["mean"], dtype=np.float64)
        covariance = np.asarray(data["covariance"], dtype=np.float64)
        if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
            raise ValueError(
                f"a NIQE model holds {FEATURES} means and a square of them; "
                f"got shapes {mean.shape} and {covariance.shape}"
            )
        return cls(mean, covariance, int(data["block"]))

    def distance(self, features: np.ndarray) -> float:
        """NIQE of a picture whose block features [blocks, 36] are given (Mittal et al., eq. 10).

        √((ν₁ − ν₂)ᵀ ((Σ₁ + Σ₂)/2)⁻¹ (ν₁ − ν₂)); NaN with fewer than two usable blocks, which
        have no covariance.
        """
        usable = features[np.isfinite(features).all(axis=1)]
        if len(usable) < 2:
            return float("nan")
        difference = self.mean - usable.mean(axis=0)
        pooled = (self.covariance + np.cov(usable, rowvar=False)) / 2
        return float(np.sqrt(max(difference @ np.linalg.pinv(pooled) @ difference, 0.0)))


@lru_cache(maxsize=1)
def _published() -> NiqeModel:
    path = resources.files("selection") / "niqe_pristine.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        return NiqeModel(data["mean"], data["covariance"], int(data["block"]))


def niqe(images: Iterable[Any], model: NiqeModel | None = None) -> np.ndarray:
    """NIQE of each picture; lower is better.

    Luma is BT.601 in studio swing (16..235), rounded. Flat blocks are left out.

    Parameters
    ----------
    images : iterable of PIL.Image.Image or ndarray
        Of any sizes; arrays are RGB [h, w, 3] (integers in 0..255 or floats in 0..1) or luma [h, w].
        Memory is that of one picture at a time, about 30 bytes a pixel of its middle 2^24.
    model : NiqeModel, optional
        The published one by default.

    Returns
    -------
    ndarray of shape [n], float64
        NaN for a picture with fewer than two blocks that are not flat.
    """
    model = model or NiqeModel.published()
    values = [model.distance(niqe_features(image, model.block)[0]) for image in images]
    return np.asarray(values, dtype=np.float64)
