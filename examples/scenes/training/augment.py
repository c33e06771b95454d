"""Augmentation of picture batches, whole batches at a time, on the device that they are on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def to_tensor(pictures: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Turn uint8 pictures (n, h, w, 3) into float32 (n, 3, h, w) on [0, 1]."""
    import torch

    if isinstance(pictures, np.ndarray):
        pictures = torch.from_numpy(np.ascontiguousarray(pictures))
    return pictures.permute(0, 3, 1, 2).float() / 255


def beside(x: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    """Give drawn values as float32 on the device of the pictures."""
    import torch

    return torch.from_numpy(values.astype(np.float32)).to(x.device)


def move(
    x: torch.Tensor,
    rng: np.random.Generator,
    degrees: float,
    scale: tuple[float, float],
    shift: float,
    flip: bool = True,
    outside: str = "white",
) -> torch.Tensor:
    """Turn, scale, shift and flip each picture at random.

    Parameters
    ----------
    x : Tensor of shape (n, 3, h, w) on [0, 1]
    degrees : float
        Largest turn either way.
    scale : tuple of float
        Smallest and largest size of the picture relative to its own.
    shift : float
        Largest shift, as a share of the side.
    outside : str
        What comes in from beyond the picture: `white`, or its `edge` drawn on.
    """
    from torch.nn import functional

    n = len(x)
    angle = rng.uniform(-degrees, degrees, n) * math.pi / 180
    size = np.exp(rng.uniform(math.log(scale[0]), math.log(scale[1]), (n, 2)).mean(1))
    stretch = np.exp(rng.uniform(-0.1, 0.1, n)) if degrees else np.ones(n)
    mirror = np.where(rng.random(n) < 0.5, -1.0, 1.0) if flip else np.ones(n)
    theta = np.zeros((n, 2, 3), np.float32)
    theta[:, 0, 0] = np.cos(angle) / size * mirror * stretch
    theta[:, 0, 1] = -np.sin(angle) / size
    theta[:, 1, 0] = np.sin(angle) / size * mirror
    theta[:, 1, 1] = np.cos(angle) / size / stretch
    theta[:, :, 2] = rng.uniform(-2 * shift, 2 * shift, (n, 2))
    grid = functional.affine_grid(beside(x, theta), list(x.shape), align_corners=False)
    if outside == "edge":
        return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return 1 - functional.grid_sample(1 - x, grid, padding_mode="zeros", align_corners=False)


def recolour(x: torch.Tensor, rng: np.random.Generator, strength: float) -> torch.Tensor:
    """Turn the hue, change saturation, contrast and brightness, at random for each picture.

    The hue turns about the grey axis of RGB; white stays white but for the brightness.
    """
    import torch

    n = len(x)
    angle = rng.normal(0, 0.35 * strength, n)
    saturation = np.exp(rng.normal(0, 0.35 * strength, n))
    saturation[rng.random(n) < 0.08 * strength] = 0.0
    gamma = np.exp(rng.normal(0, 0.25 * strength, n))
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    third = np.full((3, 3), 1 / 3)
    cross = np.asarray([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = third + (np.eye(3) - third) * cos + cross * sin
    mix = third + saturation[:, None, None] * (turn - third)
    # Half precision would show as bands of colour.
    with torch.autocast(x.device.type, enabled=False):
        mixed = torch.einsum("nij,njhw->nihw", beside(x, mix), x)
    return mixed.clamp(0, 1) ** beside(x, gamma)[:, None, None, None]


def blot(x: torch.Tensor, rng: np.random.Generator, share: float) -> torch.Tensor:
    """Paint a rectangle of one colour into a share of the pictures."""
    import torch

    n, side = len(x), x.shape[-1]
    chosen = rng.random(n) < share
    size = rng.integers(side // 8, side // 2, (n, 2))
    first = rng.integers(0, side - size)
    colours = np.where(rng.random((n, 1)) < 0.5, 1.0, rng.random((n, 3)))
    at = np.arange(side)
    within = (at >= first[..., None]) & (at < (first + size)[..., None])
    rows, columns = beside(x, within[:, 0] & chosen[:, None]), beside(x, within[:, 1])
    covered = (rows[:, :, None] * columns[:, None, :])[:, None] > 0
    return torch.where(covered, beside(x, colours)[:, :, None, None], x)


def blur(x: torch.Tensor, rng: np.random.Generator, share: float) -> torch.Tensor:
    """Soften a share of the pictures, and sharpen as many, which draws outlines."""
    from torch.nn import functional

    soft = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    amount = rng.uniform(-1.5, 1.0, len(x))
    amount[rng.random(len(x)) > 2 * share] = 0.0
    return (x + beside(x, amount)[:, None, None, None] * (soft - x)).clamp(0, 1)
