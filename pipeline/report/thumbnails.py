"""Small pictures of retrieved pairs, for whoever looks at what the knowledge base holds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.knowledge.standing import StandingKnowledge
from pipeline.storage.digests import digest
from pipeline.storage.files import writing_whole

logger = logging.getLogger(__name__)

SIDE = 160


def write_thumbnails(
    knowledge: StandingKnowledge, rows: Sequence[int], folder: Path
) -> dict[int, Path]:
    """Write the pictures of some pairs as PNG of at most 160 pixels a side; their paths by row.

    A pair's thumbnail is named after its id and the bytes of its picture, so that one which is
    there already is left alone. Where the pictures are no longer at their place there are none.
    """
    paths: dict[int, Path] = {}
    try:
        pairs = knowledge.pairs(rows, with_images=True)
    except (KeyError, OSError, ValueError) as error:
        logger.warning("no thumbnails: the pairs' pictures moved since the build (%s)", error)
        return paths
    for row, pair in pairs.items():
        if pair.image is None or pair.encoded is None:
            continue
        paths[row] = folder / f"{digest(pair.id, pair.encoded)}.png"
        if not paths[row].exists():
            image = pair.image.convert("RGB")
            image.thumbnail((SIDE, SIDE))
            with writing_whole(paths[row]) as scratch:
                image.save(scratch, "PNG")
    return paths
