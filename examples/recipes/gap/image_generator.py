"""The recipe's image generator: `sdxl` over the tiny autoencoder, a class that diffusers has to be told of.

A config names it as `examples.recipes.gap.image_generator:PhotographPainter`, and as `model` the folder
that `examples.recipes.gap.train --part images` wrote.
"""

from __future__ import annotations

from pydantic import Field

# diffusers imports no module because a checkpoint names one.
from examples.recipes.gap.autoencoder import TinyAutoencoder
from generators.sdxl import SdxlImageGenerator
from generators.sdxl_settings import SdxlSettings

__all__ = ["PhotographPainter", "PhotographPainterSettings", "TinyAutoencoder"]


class PhotographPainterSettings(SdxlSettings):
    """What may stand under `image_generator`: all that `sdxl` takes."""

    kind: str = Field(description="The address of the class.")  # type: ignore[assignment]
    model: str = Field(description="Folder that `examples.recipes.gap.train --part images` wrote.")


class PhotographPainter(SdxlImageGenerator):
    """Images by the recipe's U-Net."""

    Settings = PhotographPainterSettings
    settings: PhotographPainterSettings
