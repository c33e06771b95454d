"""Pictures on a ground, at a size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from generators.pictures import covering, on_ground, shrunk


def hole() -> Image.Image:
    """Fully transparent, with black behind it, as most editors leave it."""
    return Image.new("RGBA", (8, 8), (0, 0, 0, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_the_ground_and_not_black(mode: str) -> None:
    image = hole() if mode == "RGBA" else Image.new("LA", (8, 8), (0, 0))
    if mode == "P":
        image = Image.new("P", (8, 8), 0)
        image.info["transparency"] = 0
    assert np.asarray(on_ground(image)).min() == 255
    assert on_ground(image, "#102030").getpixel((0, 0)) == (16, 32, 48)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "I;16", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert on_ground(Image.new(mode, (4, 4))).mode == "RGB"


def test_a_picture_covers_the_frame_and_is_cut_evenly_without_distortion() -> None:
    wide = Image.new("RGB", (100, 20), "red")
    wide.paste("blue", (0, 0, 40, 20))
    wide.paste("lime", (60, 0, 100, 20))
    covered = np.asarray(covering(wide, (64, 64)))
    assert covered.shape == (64, 64, 3)
    assert (covered == (255, 0, 0)).all()
    assert covering(Image.new("RGB", (10, 5)), (64, 32)).size == (64, 32)
    assert covering(hole(), (8, 4), "#102030").getpixel((0, 0)) == (16, 32, 48)


def test_a_small_image_is_not_enlarged_by_shrinking() -> None:
    small = Image.new("RGB", (10, 5), "red")
    assert shrunk(small, 64).size == (10, 5)
    assert shrunk(Image.new("RGB", (1000, 500)), 64).size == (64, 32)
