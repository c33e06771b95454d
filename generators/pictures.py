"""Pictures as models take them: three channels, on a ground, at a size."""

from __future__ import annotations

from PIL import Image, ImageOps

TRANSPARENT_MODES = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})


def on_ground(image: Image.Image, background: str = "white") -> Image.Image:
    """The image in RGB; what is transparent shows the background.

    Converting straight to RGB would show whatever colour hides behind the transparency, most often
    black.
    """
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, background)
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")


def fitted_into(
    image: Image.Image, size: tuple[int, int], background: str = "white"
) -> Image.Image:
    """The whole image scaled into ``(width, height)`` and padded; nothing is cropped or distorted."""
    return ImageOps.pad(
        on_ground(image, background),
        size,
        method=Image.Resampling.LANCZOS,
        color=background,
    )


def shrunk(image: Image.Image, longest_side: int, background: str = "white") -> Image.Image:
    """The image in RGB with its longest side at most ``longest_side`` pixels; never enlarged."""
    image = on_ground(image, background)
    if max(image.size) > longest_side:
        image = ImageOps.contain(
            image, (longest_side, longest_side), method=Image.Resampling.LANCZOS
        )
    return image
