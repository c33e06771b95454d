"""The halves that a block looks at to ground its rows: their own, and the captions of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from generators.base import Needs
from generators.pictures import held
from kb.encoders.ahead import ahead, usable_cores
from pipeline.completion.row import Row
from pipeline.dataset.images import UndecodableImage, decode
from pipeline.knowledge.standing import Pair
from pipeline.models.item_errors import embed_each
from pipeline.models.loaded import LoadedModels


def decode_pictures(
    models: LoadedModels, rows: Sequence[Row], needs: Needs, max_pixels: int
) -> list[Any]:
    """Give rows their pictures as the generator needs them, and return what the encoder takes.

    Pictures are decoded on all cores, and at their full size (a JPEG at the smallest of its own scales
    that serves both) no more of them are held than there are cores. A row whose picture can't be decoded
    has an error, and None stands in its place.
    """
    side, jpeg_side = needs.side, models.jpeg_side
    least = None if side is None or jpeg_side is None else max(side, jpeg_side)

    def one(row: Row) -> Any:
        assert row.file is not None
        try:
            picture = decode(row.file, max_pixels, least)
        except UndecodableImage as error:
            row.error = f"the observed image can't be decoded any more: {error}"
            return None
        row.item, row.least = held(picture, side), least
        return models.prepare(picture)

    return list(ahead(one, rows, usable_cores(), max(1, len(rows))))


def embedded_captions(models: LoadedModels, pairs: Iterable[Pair]) -> dict[str, np.ndarray]:
    """Unit embeddings of the captions of pairs that have several, but for those that can't be had."""
    several = (pair.captions for pair in pairs if len(pair.captions) > 1)
    captions = list(dict.fromkeys(caption for each in several for caption in each))
    found, faults = embed_each(models, [[caption] for caption in captions], "text")
    return {caption: found[n] for n, caption in enumerate(captions) if n not in faults}


def nearest_caption(
    captions: Sequence[str], target: np.ndarray | None, embeddings: Mapping[str, np.ndarray]
) -> str:
    """Of a pair's captions the one nearest to a row's text, its own or the pseudo one."""
    known = [caption for caption in captions if caption in embeddings]
    if target is None or not known:
        return captions[0]
    return known[int(np.argmax([embeddings[caption] @ target for caption in known]))]
