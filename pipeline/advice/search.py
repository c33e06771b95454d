"""Asking the knowledge base: what it retrieves for a picture or a text of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kb.embeddings import Modality
from pipeline.dataset.images import UndecodableImage, decode
from pipeline.job import Job
from pipeline.report.thumbnails import write_thumbnails
from pipeline.storage.errors import ConfigError

SHOWN = ("source", "licence", "text", "file", "position")


def search(
    job: Job, image: Path | None = None, text: str | None = None, count: int = 5
) -> list[dict[str, Any]]:
    """What the knowledge base retrieves for an image file or a text, best first.

    Each hit has both similarities, its source, and the path of a thumbnail.

    Raises
    ------
    ConfigError
        There is no knowledge base yet or a damaged one, or the file isn't an image.
    """
    if not job.knowledge.stands:
        raise ConfigError(f"{job.folder} holds no knowledge base; first: rag4dmc build CONFIG")
    modality: Modality = "text" if image is None else "image"
    item: Any = [text]
    if image is not None:
        try:
            item = decode(image.read_bytes(), job.config.dataset.max_pixels)
        except (OSError, UndecodableImage) as error:
            raise ConfigError(f"--image {image}: {error}") from None
    knowledge = job.knowledge.checked()
    query = job.models.embed([item], modality)
    found = knowledge.retriever.retrieve(query, modality, m=count)[0]
    small = write_thumbnails(job.knowledge, [h.row for h in found], job.folder / "thumbnails")
    return [
        {"id": hit.id, "intra": hit.intra, "cross": hit.cross, "score": hit.score}
        | {name: knowledge.pair(hit.row)[name] for name in SHOWN}
        | {"thumbnail": str(small[hit.row]) if hit.row in small else None}
        for hit in found
    ]
