"""JPEGs decoded at a scale of their own: large enough, upright, and with their faults told."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.images import UndecodableImage, decode, image_fault
from tests.pipeline.dataset.test_images import _encoded, _noise


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_a_jpeg_may_be_decoded_at_the_smallest_scale_that_is_large_enough(kind: str) -> None:
    smooth = _noise(size=(4, 3)).resize((640, 480), Image.Resampling.BICUBIC)
    options = {"save_all": True, "append_images": [smooth]} if kind == "MPO" else {}
    data = _encoded(smooth, kind, quality=95, **options)
    sizes = {side: decode(data, least_side=side).size for side in (1, 60, 100, 240, 241, 9999)}
    eighth, quarter, half, whole = (80, 60), (160, 120), (320, 240), (640, 480)
    assert sizes == {1: eighth, 60: eighth, 100: quarter, 240: half, 241: whole, 9999: whole}
    assert image_fault(data) is None
    scaled = np.asarray(decode(data, least_side=240), np.int16)
    expected = np.asarray(smooth.resize(half, Image.Resampling.BOX), np.int16)
    assert np.abs(scaled - expected).mean() < 2


def test_a_smaller_scale_is_upright_and_other_formats_have_none() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = _encoded(_noise(size=(64, 32)), "JPEG", exif=turned)
    assert decode(data, least_side=16).size == (16, 32)
    assert decode(_encoded(_noise(size=(64, 32))), least_side=8).size == (64, 32)


def test_a_jpeg_that_is_cut_is_told_at_any_scale() -> None:
    data = _encoded(_noise(size=(640, 480)), "JPEG")
    with pytest.raises(UndecodableImage, match="truncated"):
        decode(data[: len(data) // 2], least_side=60)
