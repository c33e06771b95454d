"""Pictures as encoders open them: RGB, of a shape and a size that they can do with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from kb.encoders.base import open_image


def test_of_a_thin_picture_the_middle_is_taken_and_no_other_is_cut() -> None:
    pixels = np.zeros((2, 1000, 3), np.uint8)
    pixels[:, 468:532] = 255
    assert open_image(Image.fromarray(pixels)).size == (64, 2)
    assert np.asarray(open_image(Image.fromarray(pixels))).min() == 255
    assert open_image(Image.fromarray(pixels.transpose(1, 0, 2))).size == (2, 64)
    assert open_image(Image.new("RGB", (320, 10))).size == (320, 10)


def test_transparent_pixels_are_laid_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert open_image(clear).getpixel((0, 0)) == (255, 255, 255)


def test_large_jpegs_are_decoded_at_a_smaller_scale(tmp_path: Path) -> None:
    Image.effect_noise((1600, 1200), 50).convert("RGB").save(tmp_path / "p.jpg")
    assert open_image(tmp_path / "p.jpg").size == (1600, 1200)
    small = open_image(tmp_path / "p.jpg", 2 * 224).size
    assert small == (800, 600)
