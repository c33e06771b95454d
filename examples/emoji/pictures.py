"""Pictures of the concepts in four drawing styles, each 64 x 64 RGB on a white ground."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from examples.emoji.captions import Concept, load_concepts
from examples.emoji.sources import WORK
from examples.scenes.sprites import read_drawing

logger = logging.getLogger(__name__)

SIZE = 64


def on_white(picture: Image.Image, size: int = SIZE) -> np.ndarray:
    """Lay a picture on white and scale its longer side to `size`, the shape kept.

    Returns
    -------
    ndarray of shape (size, size, 3), uint8
    """
    rgba = picture.convert("RGBA")
    ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    flat = Image.alpha_composite(ground, rgba).convert("RGB")
    scale = size / max(flat.size)
    if scale != 1:
        width, height = (max(1, round(side * scale)) for side in flat.size)
        flat = flat.resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), (255, 255, 255))
    square.paste(flat, ((size - flat.width) // 2, (size - flat.height) // 2))
    return np.asarray(square)


def read_picture(concept: Concept, style: str, work: Path = WORK) -> np.ndarray | None:
    """Read one concept in one style; None where the style does not draw it."""
    drawing = read_drawing(concept, style, work)
    return None if drawing is None else on_white(drawing)


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
