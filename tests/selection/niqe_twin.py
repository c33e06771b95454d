"""NIQE written straight from the paper with scipy: slow, plain, and the yardstick of the tests."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import convolve
from scipy.special import gamma

_OFFSETS = np.arange(-3, 4)
_WINDOW = np.exp(-(_OFFSETS[:, None] ** 2 + _OFFSETS[None, :] ** 2) / (2 * (7 / 6) ** 2))
_WINDOW /= _WINDOW.sum()


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def half(plane: np.ndarray) -> np.ndarray:
    def matrix(length: int) -> np.ndarray:
        result = np.zeros((length // 2, length))
        for row in range(length // 2):
            for tap in range(2 * row - 4, 2 * row + 7):
                weight = 0.5 * _cubic(np.array((2 * row + 0.5 - tap) / 2))
                mirrored = tap if tap >= 0 else -tap - 1
                mirrored = mirrored if mirrored < length else 2 * length - mirrored - 1
                result[row, mirrored] += weight
        return result / result.sum(axis=1, keepdims=True)

    return matrix(plane.shape[0]) @ plane @ matrix(plane.shape[1]).T


def contrast(plane: np.ndarray) -> np.ndarray:
    mean = convolve(plane, _WINDOW, mode="nearest")
    deviation = np.sqrt(np.abs(convolve(plane**2, _WINDOW, mode="nearest") - mean**2))
    return (plane - mean) / (deviation + 1)


def aggd(sample: np.ndarray) -> tuple[float, float, float]:
    shapes = np.arange(0.2, 10.001, 0.001)
    ratios = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))
    left = np.sqrt(np.mean(sample[sample < 0] ** 2))
    right = np.sqrt(np.mean(sample[sample > 0] ** 2))
    g = left / right
    r = np.mean(np.abs(sample)) ** 2 / np.mean(sample**2)
    r = r * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    shape = shapes[np.argmin((ratios - r) ** 2)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return float(shape), float(left * scale), float(right * scale)


def block_features(block: np.ndarray) -> list[float]:
    shape, left, right = aggd(block)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = aggd(block * np.roll(block, shift, axis=(0, 1)))
        features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return features


def niqe(plane: np.ndarray, mean: np.ndarray, covariance: np.ndarray, side: int = 96) -> float:
    height, width = (length // side * side for length in plane.shape)
    plane = plane[:height, :width].astype(np.float64)
    scales = []
    for size in (side, side // 2):
        values = contrast(plane)
        scales.append(
            [
                block_features(values[y : y + size, x : x + size])
                for y in range(0, values.shape[0], size)
                for x in range(0, values.shape[1], size)
            ]
        )
        plane = half(plane)
    rows = np.concatenate(scales, axis=1)
    difference = mean - rows.mean(axis=0)
    pooled = (covariance + np.cov(rows, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))
