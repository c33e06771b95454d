"""Pictures of the concepts in four drawing styles, each 64 x 64 RGB on a white ground."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from examples.emoji.captions import Concept, load_concepts
from examples.emoji.sources import WORK, npm_package

logger = logging.getLogger(__name__)

SIZE = 64
STYLES = ("noto", "twemoji", "fluent-3d", "fluent-flat")
TRAINING_STYLES = ("twemoji", "fluent-3d")


def on_white(picture: Image.Image, size: int = SIZE, margin: float = 0.0) -> np.ndarray:
    """Lay a picture on white and scale its longer side to `size`, the shape kept.

    Parameters
    ----------
    picture : Image
        Any mode; transparency becomes white.
    size : int
        Side of the square result in pixels.
    margin : float
        Share of the side that stays white on each border.

    Returns
    -------
    ndarray of shape (size, size, 3), uint8
    """
    rgba = picture.convert("RGBA")
    ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    flat = Image.alpha_composite(ground, rgba).convert("RGB")
    inner = round(size * (1 - 2 * margin))
    scale = inner / max(flat.size)
    if scale != 1:
        width, height = (max(1, round(side * scale)) for side in flat.size)
        flat = flat.resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), (255, 255, 255))
    square.paste(flat, ((size - flat.width) // 2, (size - flat.height) // 2))
    return np.asarray(square)


def render_svg(svg: bytes | str, size: int = SIZE, margin: float = 0.0) -> np.ndarray:
    """Draw an SVG on white at `size` pixels.

    Raises
    ------
    ValueError
        When the text is no SVG that can be drawn.
    """
    import resvg_py

    text = svg.decode("utf-8") if isinstance(svg, bytes) else svg
    png = resvg_py.svg_to_bytes(svg_string=text, width=4 * size, skip_system_fonts=True)
    return on_white(Image.open(io.BytesIO(bytes(png))), size, margin)


def slugs(concept: Concept) -> Iterator[str]:
    """Give the file stems under which the flat style may keep a concept, likeliest first."""
    for name in (concept.name, concept.title):
        stem = re.sub(r"[^a-z0-9]+", "-", name.replace("'", "").replace(".", "")).strip("-")
        for prefix in ("", "flag-"):
            yield prefix + stem
            yield prefix + stem + "-default"


def read_picture(concept: Concept, style: str, work: Path = WORK) -> np.ndarray | None:
    """Read one concept in one style; None where the style does not draw it."""
    if style == "noto":
        path = npm_package(style, work) / "img" / "google" / "64" / concept.image
        return on_white(Image.open(path)) if path.is_file() else None
    if style == "twemoji":
        path = npm_package(style, work) / "img" / "twitter" / "64" / concept.image
        return on_white(Image.open(path)) if path.is_file() else None
    if style == "fluent-3d":
        folder = npm_package(style, work) / "assets"
        bare = concept.id.replace("-fe0f", "")
        for stem in (concept.id, concept.id.lstrip("0"), bare, bare + "-fe0f"):
            path = folder / f"{stem}.webp"
            if path.is_file():
                return on_white(Image.open(path))
        return None
    if style == "fluent-flat":
        folder = npm_package(style, work) / "icons" / "flat"
        for stem in slugs(concept):
            path = folder / f"{stem}.svg"
            if path.is_file():
                return render_svg(path.read_bytes())
        return None
    raise ValueError(f"style must be one of {', '.join(STYLES)}; got {style!r}")


def load_pictures(style: str, work: Path = WORK) -> tuple[np.ndarray, np.ndarray]:
    """Read all pictures of one style, from the work folder's cache after the first time.

    Returns
    -------
    rows : ndarray of shape (n,), int64
        Positions in `load_concepts` of the concepts that the style draws.
    pictures : ndarray of shape (n, 64, 64, 3), uint8
    """
    cache = work / "pictures" / f"{style}.npz"
    if not cache.is_file():
        rows, pictures = [], []
        for row, concept in enumerate(load_concepts(work)):
            picture = read_picture(concept, style, work)
            if picture is not None:
                rows.append(row)
                pictures.append(picture)
        logger.info("%s: %d pictures", style, len(rows))
        cache.parent.mkdir(parents=True, exist_ok=True)
        beside = cache.with_suffix(".new.npz")
        np.savez_compressed(beside, rows=np.asarray(rows), pictures=np.stack(pictures))
        beside.rename(cache)
    with np.load(cache) as held:
        return held["rows"], held["pictures"]
