"""Pictures on a ground, at a size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from generators.pictures import fitted_into, on_ground, shrunk


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


def test_a_fitted_image_is_whole_and_padded() -> None:
    wide = Image.new("RGB", (80, 20), "red")
    fitted = np.asarray(fitted_into(wide, (64, 64)))
    assert fitted.shape == (64, 64, 3)
    red = (fitted == (255, 0, 0)).all(-1)
    assert red.any(axis=0).all()
    assert red.any(axis=1).sum() == 16
    assert (fitted[0] == 255).all()


def test_a_small_image_is_enlarged_to_fit_but_never_by_shrinking() -> None:
    small = Image.new("RGB", (10, 5), "red")
    assert fitted_into(small, (64, 64)).size == (64, 64)
    assert shrunk(small, 64).size == (10, 5)
    assert shrunk(Image.new("RGB", (1000, 500)), 64).size == (64, 32)
