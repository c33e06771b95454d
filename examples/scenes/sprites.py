"""Single things cut out of the drawing sets, in four styles, with transparent surroundings."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from examples.scenes.names import Concept
from examples.scenes.sources import WORK, npm_package

STYLES = ("noto", "twemoji", "fluent-3d", "fluent-flat")
TRAINING_STYLES = ("twemoji", "fluent-3d")
SIDE = 64
# Lowest alpha, of 255, of a pixel that counts as drawn.
DRAWN = 24


def render_svg(svg: bytes | str, width: int = 256) -> Image.Image:
    """Draw an SVG, transparent where it draws nothing.

    Raises
    ------
    ValueError
        When the text is no SVG that can be drawn.
    """
    import resvg_py

    text = svg.decode("utf-8") if isinstance(svg, bytes) else svg
    png = resvg_py.svg_to_bytes(svg_string=text, width=width, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def slugs(concept: Concept) -> Iterator[str]:
    """Give the file stems under which the flat style may keep a concept, likeliest first."""
    for name in (concept.name, concept.title):
        stem = re.sub(r"[^a-z0-9]+", "-", name.replace("'", "").replace(".", "")).strip("-")
        for prefix in ("", "flag-"):
            yield prefix + stem
            yield prefix + stem + "-default"


def read_drawing(concept: Concept, style: str, work: Path = WORK) -> Image.Image | None:
    """Read one concept's drawing in one style; None where the style does not draw it."""
    folders = {"noto": "google", "twemoji": "twitter"}
    if style in folders:
        path = npm_package(style, work) / "img" / folders[style] / "64" / concept.image
        return Image.open(path).convert("RGBA") if path.is_file() else None
    if style == "fluent-3d":
        folder = npm_package(style, work) / "assets"
        bare = concept.id.replace("-fe0f", "")
        for stem in (concept.id, concept.id.lstrip("0"), bare, bare + "-fe0f"):
            path = folder / f"{stem}.webp"
            if path.is_file():
                return Image.open(path).convert("RGBA")
        return None
    if style == "fluent-flat":
        folder = npm_package(style, work) / "icons" / "flat"
        for stem in slugs(concept):
            path = folder / f"{stem}.svg"
            if path.is_file():
                return render_svg(path.read_bytes())
        return None
    raise ValueError(f"style must be one of {', '.join(STYLES)}; got {style!r}")


def cut_out(drawing: Image.Image, side: int = SIDE) -> Image.Image:
    """Crop a drawing to what is drawn and scale its longer side to `side` pixels."""
    alpha = np.asarray(drawing)[..., 3] >= DRAWN
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if not len(rows):
        raise ValueError("drawing must show something; got only transparent pixels")
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    cropped = drawing.crop(tuple(int(edge) for edge in box))
    return scaled(cropped, side)


def scaled(sprite: Image.Image, side: int) -> Image.Image:
    """Scale a sprite's longer side to `side` pixels; colours under transparency don't bleed in."""
    scale = side / max(sprite.size)
    width, height = (max(1, round(length * scale)) for length in sprite.size)
    return sprite.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")


# Hue in degrees from which each name holds, of pixels that have a colour at all.
HUES = ((0, "red"), (16, "orange"), (42, "yellow"), (68, "green"), (168, "blue"), (255, "purple"))
HUES += ((305, "pink"), (343, "red"))
CLEAR = 0.62


def colour_of(sprite: Image.Image) -> str | None:
    """Name the colour that most of a sprite has; None where no colour has a clear majority.

    Returns
    -------
    str or None
        One of red, orange, yellow, green, blue, purple, pink, brown, grey, white, black.
    """
    drawn = np.asarray(sprite)
    pixels = drawn[drawn[..., 3] > 128][:, :3].astype(float) / 255
    if not len(pixels):
        return None
    top, low = pixels.max(1), pixels.min(1)
    spread = top - low
    safe = np.where(spread > 0, spread, 1)
    red, green, blue = pixels.T
    sector = np.select(
        [top == red, top == green],
        [((green - blue) / safe) % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )
    hue = 60 * sector
    names = np.asarray([name for _, name in HUES])
    named = names[np.searchsorted([start for start, _ in HUES], hue, side="right") - 1]
    named = np.where((named == "red") & (top > 0.8) & (low > 0.45), "pink", named)
    dull = (top < 0.9) | (spread < 0.7 * top)
    named = np.where((named == "orange") & dull, "brown", named)
    named = np.where((named == "yellow") & (top < 0.7), "brown", named)
    named = np.where((named == "red") & (top < 0.5), "brown", named)
    pale = spread < 0.14
    named = np.where(pale, np.select([top < 0.3, top < 0.82], ["black", "grey"], "white"), named)
    named = np.where(~pale & (top < 0.22), "black", named)
    colours, counts = np.unique(named, return_counts=True)
    best = int(counts.argmax())
    return str(colours[best]) if counts[best] >= CLEAR * len(pixels) else None
