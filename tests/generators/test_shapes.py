"""Pictures of shapes that no model learned on: strips, and single pixels."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generators.base import CaptionRequest, Example, ImageRequest
from generators.pictures import MOST_RATIO, bounded, covering, shrunk
from tests.generators.cases import CASES

SHAPES = [(900, 3), (4000, 1), (1, 20000), (1, 1)]


def strip(size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 200, (size[1], size[0], 3))
    return Image.fromarray(noise.astype(np.uint8))


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16", "1"])
def test_a_strip_lies_whole_on_a_ground(size: tuple[int, int], mode: str) -> None:
    image = strip(size).convert("L").convert("I").convert("I;16") if mode == "I;16" else None
    image = image or strip(size).convert(mode)
    assert covering(image, (64, 48)).size == (64, 48)
    for made in (bounded(image), shrunk(image, 64)):
        assert made.mode == "RGB"
        assert max(made.size) <= MOST_RATIO * min(made.size)
        assert made.width * made.height <= 2048 * 2048
        assert mode in ("1", "I;16") or np.asarray(made).min() < 255


def test_other_pictures_keep_their_pixels() -> None:
    image = strip((200, 10))
    assert bounded(image).tobytes() == image.tobytes()


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize(("role", "case"), CASES)
def test_any_shape_is_captioned_and_grounds_a_picture(
    role: str, case: str, size: tuple[int, int], loaded: Any, examples: Any
) -> None:
    pairs = (Example("strip", "a red hat", strip(size)),)
    request: Any = ImageRequest("row", "a red hat", pairs, (1,))
    if role == "captioner":
        request = CaptionRequest("row", strip(size), pairs, (1,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (answer,) = loaded(role, case).generate([request])
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert answer.error is None
    assert len(answer.candidates) == 1
    assert taken < 600_000, f"{taken} kB more than before"
