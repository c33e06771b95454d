"""Pictures that were let go while requests were under way come back as they were shown before."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from generators.base import Needs
from generators.pictures import held
from kb.retrieval import Hit
from pipeline.completion.halves import decode_pictures
from pipeline.completion.row import Grounds, Row
from pipeline.dataset.images import decode
from pipeline.knowledge.standing import Pair

SIDE = 200
LIMIT = 10_000_000


def _photograph() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_large_jpeg_is_shown_with_the_same_pixels_in_every_round() -> None:
    """Decoded at one of its own scales and at its full size, a JPEG shrinks to other pixels."""
    data = _photograph()
    image = held(decode(data, LIMIT, SIDE), SIDE)
    pair = Pair(0, "pair", "own", None, ("a hat",), image, data)
    grounds = Grounds(pair, "a hat", Hit("pair", 0, 1.0, 1.0, 1.0), SIDE)
    for jpeg_side in (64, 500, None):
        row = Row("row", None, "null", 1, file=data, side=SIDE, examples=[grounds])
        models: Any = SimpleNamespace(jpeg_side=jpeg_side, prepare=lambda picture: picture)
        decode_pictures(models, [row], Needs(side=SIDE), LIMIT)
        before = [np.asarray(row.observed), np.asarray(row.examples[0].picture)]
        row.let_pictures_go()
        assert row.item is None and row.examples[0].pair.image is None
        after = [np.asarray(row.observed), np.asarray(row.examples[0].picture)]
        assert all(np.array_equal(*both) for both in zip(before, after, strict=True))
