"""The sizes that a diffusion model draws: what it learned on, in the shape that is wanted."""

from __future__ import annotations

import logging
import math
from typing import Any

logger = logging.getLogger(__name__)

Size = tuple[int, int]

# Heights and widths of about a megapixel that SDXL learned on, each also the other way round
# (Podell et al. 2023, appendix I). They stand for the shapes of models of other sizes, too.
LEARNED_SIDE = 1024
LEARNED = (
    (512, 2048),
    (512, 1984),
    (512, 1920),
    (512, 1856),
    (576, 1792),
    (576, 1728),
    (576, 1664),
    (640, 1600),
    (640, 1536),
    (704, 1472),
    (704, 1408),
    (704, 1344),
    (768, 1344),
    (768, 1280),
    (832, 1216),
    (832, 1152),
    (896, 1152),
    (896, 1088),
    (960, 1088),
    (960, 1024),
    (1024, 1024),
)


class Frames:
    """The sizes of one pipeline.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    setting : "auto", int or (int, int)
        Pixels to draw; ``auto`` is the size that the model learned on, in the shape that is asked for.

    Attributes
    ----------
    size : (int, int)
        Width and height where no shape is asked for.

    Raises
    ------
    ValueError
        When a side isn't a multiple of what the model draws.
    """

    def __init__(self, pipe: Any, setting: Any) -> None:
        self.native, self.unit = _native(pipe)
        self.fixed = setting != "auto"
        self.size = width_height(setting) if self.fixed else self.native
        self._check()

    def of_shape(self, shape: Size) -> Size:
        """The (width, height) to draw for a picture of this one: that nearest in their ratio.

        The fixed size, where one is set.
        """
        if self.fixed:
            return self.size
        wanted = math.log(shape[0] / shape[1])
        return min(self._shapes(), key=lambda size: abs(math.log(size[0] / size[1]) - wanted))

    @property
    def most_pixels(self) -> int:
        """Of the largest picture that is drawn."""
        sizes = [self.size] if self.fixed else self._shapes()
        return max(width * height for width, height in sizes)

    def _shapes(self) -> list[Size]:
        """The learned size and its shapes of about as many pixels, the learned one first."""
        scale = math.sqrt(self.native[0] * self.native[1]) / LEARNED_SIDE
        scaled = [
            tuple(max(1, round(side * scale / self.unit)) * self.unit for side in sides)
            for sides in LEARNED
        ]
        both = [size for one, other in scaled for size in ((one, other), (other, one))]
        return list(dict.fromkeys([self.native, *both]))

    def _check(self) -> None:
        size, native, unit = self.size, self.native, self.unit
        if any(side % unit for side in size):
            near = " x ".join(str(max(unit, round(side / unit) * unit)) for side in size)
            raise ValueError(
                f"size must be a multiple of {unit} pixels; got {size[0]} x {size[1]}, "
                f"the nearest is {near}"
            )
        if not 0.75 <= size[0] * size[1] / (native[0] * native[1]) <= 1.35:
            logger.warning(
                "size %d x %d is far from the %d x %d that the model learned on: expect poor images; "
                "leave size at auto and set output_size to resize the result",
                *size,
                *native,
            )


def width_height(size: Any, reverse: bool = False) -> Size:
    """(width, height) of a side, or of a pair; ``reverse`` for a pair given as height and width."""
    if isinstance(size, int):
        return size, size
    first, second = size
    return (second, first) if reverse else (first, second)


def _native(pipe: Any) -> tuple[Size, int]:
    """(width, height) that a pipeline's model learned on, and what its sides are multiples of."""
    unet = getattr(pipe, "unet", None)
    model = unet or getattr(pipe, "transformer", None)
    scale = getattr(pipe, "vae_scale_factor", 8)
    sample = getattr(getattr(model, "config", None), "sample_size", None)
    sample = sample or getattr(pipe, "default_sample_size", None) or LEARNED_SIDE // scale
    width, height = width_height(sample, reverse=True)
    # Transformers take two latents a side as one token.
    unit = max(8, scale) if unet is not None else max(8, 2 * scale)
    return (width * scale, height * scale), unit
