"""Noise for the external base: public-domain clip art that has nothing of the target domain."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

import numpy as np
from PIL import Image

from examples.scenes.grounds import SIDE
from examples.scenes.sources import WORK, openclipart
from examples.scenes.sprites import render_svg

logger = logging.getLogger(__name__)

# Maps, shapes, logos and signs; no clocks, weather, stars of the sky, or things.
FOLDERS = (
    "geography",
    "logos",
    "shapes/flowchart",
    "shapes/callouts",
    "shapes/stars",
    "shapes/jigsaw",
    "signs_and_symbols/led",
    "signs_and_symbols/map_symbols",
    "signs_and_symbols/flags",
    "special/patterns",
)
# At most so many from one folder: the folders' sizes differ by a hundred times.
MOST = 110
LARGEST = 200_000
PUBLIC_DOMAIN = re.compile(r"cc:license[^>]*PublicDomain")
TITLE = re.compile(r"<dc:title>\s*([^<]+?)\s*</dc:title>")


def on_white(drawing: Image.Image) -> np.ndarray:
    """Lay a drawing on white, its longer side as long as a scene's, the shape kept."""
    side = SIDE - 4
    scale = side / max(drawing.size)
    size = tuple(max(1, round(length * scale)) for length in drawing.size)
    ground = Image.new("RGBA", drawing.size, "white")
    flat = Image.alpha_composite(ground, drawing).convert("RGB")
    flat = flat.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(flat, ((SIDE - flat.width) // 2, (SIDE - flat.height) // 2))
    return np.asarray(square)


def title_of(svg: str) -> str | None:
    """Give the title in an SVG's metadata, in lower case; None where it says nothing."""
    found = TITLE.search(svg)
    if found is None:
        return None
    title = re.sub(r"\s+", " ", found.group(1)).strip().lower()
    plain = re.fullmatch(r"[a-z0-9 ,.'&()-]{4,60}", title) is not None
    return title if plain and re.search(r"[a-z]{3}", title) else None


def load_clipart(count: int, work: Path = WORK) -> list[tuple[str, str, np.ndarray]]:
    """Choose and draw public-domain clip art, seeded by file names.

    Parameters
    ----------
    count : int
        How many pictures to give at most.

    Returns
    -------
    list of (name, title, picture)
        The file's path below Openclipart's root, its title, and uint8 (64, 64, 3).
    """
    root = openclipart(work)
    kept: list[tuple[str, str, np.ndarray]] = []
    for folder in FOLDERS:
        files = [path for path in (root / folder).rglob("*.svg") if "astronomy" not in path.parts]
        files.sort(key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
        titles: set[str] = set()
        for path in files:
            if len(titles) >= MOST:
                break
            if path.is_symlink() or path.stat().st_size > LARGEST:
                continue
            svg = path.read_text("utf-8", errors="replace")
            title = title_of(svg)
            if title is None or title in titles or PUBLIC_DOMAIN.search(svg) is None:
                continue
            try:
                picture = on_white(render_svg(svg))
            except ValueError as error:
                logger.info("%s left out: %s", path.name, error)
                continue
            if picture.std() < 8:
                continue
            titles.add(title)
            kept.append((str(path.relative_to(root)), title, picture))
    kept.sort(key=lambda found: hashlib.sha256(found[0].encode()).hexdigest())
    return kept[:count]
