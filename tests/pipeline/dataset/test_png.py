"""PNGs that tell much beside their pixels: large colour profiles, long texts, bombs of both."""

from __future__ import annotations

import io
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.images import decode, image_fault


def _noise() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (21, 33, 3)).astype(np.uint8)
    return Image.fromarray(values)


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def _png_with(chunk: bytes, where: bytes) -> bytes:
    """A PNG with one chunk more, before the one of the kind `where`."""
    png = _encoded(_noise())
    place = png.index(where) - 4
    return png[:place] + chunk + png[place:]


# Scanners and printers describe their colours at such length, and generators their prompts.
PROFILE = _chunk(b"iCCP", b"scanner\0\0" + zlib.compress(bytes(3_000_000)))
PROMPT = _chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"a cat, " * 400_000))
GOOD = {
    "a large profile": _png_with(PROFILE, b"IDAT"),
    "a long text": _png_with(PROMPT, b"IDAT"),
    "a long text behind its pixels": _png_with(PROMPT, b"IEND"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_a_png_tells_at_length_changes_no_pixel(name: str) -> None:
    assert image_fault(GOOD[name]) is None
    assert np.array_equal(np.asarray(decode(GOOD[name])), np.asarray(_noise()))


def test_a_few_bytes_of_text_do_not_become_gigabytes() -> None:
    squeezed = zlib.compressobj(9)
    bomb = b"".join(squeezed.compress(bytes(1 << 24)) for _ in range(64)) + squeezed.flush()
    data = _png_with(_chunk(b"zTXt", b"prompt\0\0" + bomb), b"IDAT")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert decode(data).size == (33, 21)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
