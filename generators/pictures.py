"""Pictures as models take them: three channels, on a ground, at a size and of a shape they survive."""

from __future__ import annotations

from PIL import Image

TRANSPARENT_MODES = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
# Processors scale the short side up to what the model learned on, so that a strip one pixel thin
# would take gigabytes, and some refuse a ratio of 200. What is longer lies on a ground of this ratio.
MOST_RATIO = 20
# A longer side of such a strip is shrunk to this before the ground is laid under it.
STRIP_SIDE = 2048


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


def bounded(image: Image.Image, background: str = "white") -> Image.Image:
    """The image in RGB, of a shape that models take: at most `MOST_RATIO` times as long as thin.

    A longer one is shrunk to `STRIP_SIDE` and laid whole on a ground; others keep their pixels.
    """
    image = on_ground(image, background)
    if _is_strip(image):
        image = _within(image, STRIP_SIDE)
    return _padded(image, background)


def covering(image: Image.Image, size: tuple[int, int], background: str = "white") -> Image.Image:
    """The image in RGB, filling ``(width, height)``: what is beyond that shape is cut off evenly.

    Nothing is distorted, and no ground is seen but through what is transparent.
    """
    ground = on_ground(image, background)
    scale = max(wanted / had for wanted, had in zip(size, ground.size, strict=True))
    width, height = (max(1, round(wanted / scale)) for wanted in size)
    left, top = (ground.width - width) // 2, (ground.height - height) // 2
    # Cut before it is scaled: a filter would let in what lies beyond the cut.
    shape = ground.crop((left, top, left + width, top + height))
    return shape.resize(size, Image.Resampling.LANCZOS)


def at_least(image: Image.Image, side: int) -> Image.Image:
    """The image, enlarged where its shorter side is below so many pixels."""
    shortest = min(image.size)
    if shortest >= side:
        return image
    width, height = (round(had * side / shortest) for had in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def shrunk(image: Image.Image, longest_side: int, background: str = "white") -> Image.Image:
    """The image in RGB with its longest side at most ``longest_side`` pixels; never enlarged.

    Of a strip, as `bounded` does.
    """
    return _padded(_within(on_ground(image, background), longest_side), background)


def lent(image: Image.Image) -> Image.Image:
    """The same picture for somebody who may change it in place, or close it: that changes theirs alone.

    Pixels are copied only then. Where Pillow can't tell a change, as by `load`'s access to single
    pixels, it refuses it.
    """
    image.load()
    lent = image._new(image.im)
    lent.format = image.format
    lent.readonly = 1
    return lent


def held(image: Image.Image, longest_side: int | None) -> Image.Image:
    """The image no larger than a generator has a use for (`generators.base.Needs`); never enlarged.

    A strip keeps at least what `bounded` makes of it.
    """
    if longest_side is None:
        return image
    return _within(image, max(longest_side, STRIP_SIDE) if _is_strip(image) else longest_side)


def _within(image: Image.Image, longest_side: int) -> Image.Image:
    longest = max(image.size)
    if longest <= longest_side:
        return image
    width, height = (max(1, round(side * longest_side / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _is_strip(image: Image.Image) -> bool:
    return max(image.size) > MOST_RATIO * min(image.size)


def _padded(image: Image.Image, background: str) -> Image.Image:
    """The image in the middle of a ground of `MOST_RATIO`, or as it is where it is no strip."""
    if not _is_strip(image):
        return image
    least = -(-max(image.size) // MOST_RATIO)
    size = (max(image.width, least), max(image.height, least))
    ground = Image.new("RGB", size, background)
    ground.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return ground
