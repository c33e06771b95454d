"""Local statistics of a picture's luma: what :mod:`selection.niqe` is built on.

Everything runs in float32 on separable filters; the slow, plain form of each stands in the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_SIGMA = 7 / 6
_GAUSSIAN = np.exp(-0.5 * (np.arange(-3, 4) / _SIGMA) ** 2)
_GAUSSIAN = (_GAUSSIAN / _GAUSSIAN.sum()).astype(np.float32)
# Keys' cubic (a = −1/2) stretched over two pixels: bicubic halving with antialiasing.
_CUBIC = np.array([-6.0, -18.0, 58.0, 222.0]) / 512
_BLOCKS_AT_ONCE = 4
_FLAT = 1e-6


def luma(image: Any) -> np.ndarray:
    """Rounded BT.601 luma in studio swing (16..235) of a picture.

    Parameters
    ----------
    image : PIL.Image.Image or ndarray
        RGB as [h, w, 3], integers in 0..255 or floats in 0..1; an array [h, w] is taken as luma
        already. Transparent pixels count as white.

    Returns
    -------
    ndarray of shape [h, w], float32
    """
    if isinstance(image, np.ndarray):
        if image.ndim == 2:
            return image.astype(np.float32)
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image must be [h, w] luma or [h, w, 3] RGB; got {image.shape}")
        rgb = image.astype(np.float32)
        if np.issubdtype(image.dtype, np.floating):
            rgb *= 255
    else:
        rgb = np.asarray(opaque(image), dtype=np.float32)
    weights = np.array([65.481, 128.553, 24.966], dtype=np.float32) / np.float32(255)
    return np.rint(rgb @ weights + np.float32(16))


def opaque(image: Any) -> Any:
    """A PIL picture as RGB, what is transparent as white."""
    if "A" in image.getbands() or "transparency" in image.info:
        from PIL import Image

        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _smooth(plane: np.ndarray) -> np.ndarray:
    """Gaussian window of 7 × 7 pixels (σ = 7/6), edges repeated."""
    for axis in (0, 1):
        length = plane.shape[axis]
        pad = [(3, 3) if side == axis else (0, 0) for side in (0, 1)]
        padded = np.pad(plane, pad, mode="edge")
        windows = [
            padded[start : start + length] if axis == 0 else padded[:, start : start + length]
            for start in range(7)
        ]
        plane = windows[3] * _GAUSSIAN[3]
        for offset in range(3):
            pair = windows[offset] + windows[6 - offset]
            pair *= _GAUSSIAN[offset]
            plane += pair
    return plane


def normalised_contrast(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean-subtracted, contrast-normalised luma (Mittal et al. 2013, eq. 1 to 3).

    Parameters
    ----------
    plane : ndarray of shape [h, w], float32
        Luma.

    Returns
    -------
    contrast : ndarray of shape [h, w]
        (I − μ)/(σ + 1).
    deviation : ndarray of shape [h, w]
        σ, in luma levels.
    """
    # E[x²] − E[x]² does not change with the origin, and loses least near the middle grey.
    centred = plane - np.float32(128)
    mean = _smooth(centred)
    deviation = _smooth(centred * centred)
    deviation -= mean * mean
    np.abs(deviation, out=deviation)
    np.sqrt(deviation, out=deviation)
    centred -= mean
    centred /= deviation + np.float32(1)
    return centred, deviation


def half_size(plane: np.ndarray) -> np.ndarray:
    """Bicubic reduction to half the size with antialiasing, edges mirrored.

    Parameters
    ----------
    plane : ndarray of shape [h, w], float32
        Both sides even.

    Returns
    -------
    ndarray of shape [h/2, w/2], float32
    """
    weights = _CUBIC.astype(np.float32)
    for axis in (0, 1):
        length = plane.shape[axis]
        pad = [(3, 3) if side == axis else (0, 0) for side in (0, 1)]
        padded = np.pad(plane, pad, mode="symmetric")
        taps = [
            padded[start : start + length : 2]
            if axis == 0
            else padded[:, start : start + length : 2]
            for start in range(8)
        ]
        plane = (taps[0] + taps[7]) * weights[0]
        for offset in range(1, 4):
            pair = taps[offset] + taps[7 - offset]
            pair *= weights[offset]
            plane += pair
    return plane


def block_statistics(contrast: np.ndarray, side: int) -> np.ndarray:
    """Sums that moment matching needs, of a plane's blocks and their neighbour products.

    Parameters
    ----------
    contrast : ndarray of shape [h, w]
        Normalised contrast; both sides multiples of ``side``.
    side : int
        Side of a block in pixels.

    Returns
    -------
    ndarray of shape [blocks, 5, 6], float64
        For the values and for their products with the left, the upper and the two upper diagonal
        neighbours (wrapped within the block): count, how many below and above zero, the sum of
        absolute values, the sums of squares below and above zero. Flat blocks, whose mean square
        contrast is under 1e-6, count nothing.
    """
    rows, columns = contrast.shape[0] // side, contrast.shape[1] // side
    grid = contrast.reshape(rows, side, columns, side).swapaxes(1, 2)
    tiles = grid.reshape(rows * columns, side, side)
    result = np.empty((len(tiles), 5, 6))
    for start in range(0, len(tiles), _BLOCKS_AT_ONCE):
        chunk = slice(start, start + _BLOCKS_AT_ONCE)
        values = tiles[chunk]
        neighbours = [np.roll(values, (down, right), axis=(1, 2)) for down, right in _SHIFTS]
        for kind, sample in enumerate([values, *(values * near for near in neighbours)]):
            result[chunk, kind] = _sums(sample.reshape(len(sample), -1))
    result[result[:, 0, 4] + result[:, 0, 5] < _FLAT * side * side] = 0
    return result


_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


def _sums(sample: np.ndarray) -> np.ndarray:
    above = np.maximum(sample, 0)
    positives = np.count_nonzero(above, axis=1)
    nonzero = np.count_nonzero(sample, axis=1)
    # Sums below zero are the whole less the sums above: one pass instead of two.
    absolute = 2 * above.sum(axis=1, dtype=np.float64) - sample.sum(axis=1, dtype=np.float64)
    positive_squares = np.einsum("bi,bi->b", above, above).astype(np.float64)
    squares = np.einsum("bi,bi->b", sample, sample).astype(np.float64)
    return np.stack(
        [
            np.full(len(sample), sample.shape[1], dtype=np.float64),
            nonzero - positives,
            positives,
            absolute,
            squares - positive_squares,
            positive_squares,
        ],
        axis=1,
    )
