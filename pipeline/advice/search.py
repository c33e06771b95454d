"""Asking the knowledge base: what it retrieves for a picture or a text of one's own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generators.base import well_formed
from kb.embeddings import Modality
from pipeline.dataset.images import UndecodableImage, decode
from pipeline.job import Job
from pipeline.knowledge.standing import StandingKnowledge
from pipeline.models.item_errors import embed_each
from pipeline.storage.digests import digest
from pipeline.storage.errors import ConfigError
from pipeline.storage.files import writing_whole

logger = logging.getLogger(__name__)

# Longest side of the pictures that are shown.
SIDE = 160
SHOWN = ("source", "licence", "text", "file", "position")


def search(
    job: Job, image: Path | None = None, text: str | None = None, count: int = 5
) -> list[dict[str, Any]]:
    """What the knowledge base retrieves for an image file or a text, best first.

    Each hit has both similarities, its source, and the path of a thumbnail.

    Raises
    ------
    ConfigError
        There is no knowledge base yet or a damaged one, the file isn't an image, or the encoder
        can't take what is asked.
    """
    if not job.knowledge.stands:
        raise ConfigError(f"{job.folder} holds no knowledge base; first: rag4dmc build CONFIG")
    modality: Modality = "text" if image is None else "image"
    item: Any = [well_formed(text or "")]
    if image is not None:
        # A device or a pipe may never end.
        if image.exists() and not image.is_file():
            raise ConfigError(f"--image {image}: not a file")
        try:
            item = decode(image.read_bytes(), job.config.dataset.max_pixels)
        except (OSError, UndecodableImage) as error:
            raise ConfigError(f"--image {image}: {error}") from None
    knowledge = job.knowledge.checked()
    query, faults = embed_each(job.models, [item], modality)
    if faults:
        raise ConfigError(f"--{modality}: {faults[0]}")
    found = knowledge.retriever.retrieve(query, modality, m=min(count, len(knowledge)))[0]
    small = write_thumbnails(job.knowledge, [h.row for h in found], job.folder / "thumbnails")
    return [
        {"id": hit.id, "intra": hit.intra, "cross": hit.cross, "score": hit.score}
        | {name: knowledge.pair(hit.row)[name] for name in SHOWN}
        | {"thumbnail": str(small[hit.row]) if hit.row in small else None}
        for hit in found
    ]


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
    except (OSError, ValueError) as error:
        logger.warning("no thumbnails: the pairs' pictures can't be read (%s)", error)
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
