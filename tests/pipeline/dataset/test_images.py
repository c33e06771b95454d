"""Decoding of what people store, and an inspector that no file can hang."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.images import ImageInspector, UndecodableImage, decode, encode, image_fault
from tests.pictures import endless_jpeg


def _encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _noise(mode: str = "RGB", size: tuple[int, int] = (33, 21)) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], bands) if bands > 1 else (size[1], size[0])
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    return Image.frombytes(mode, size, values.tobytes())


def _chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def _png_of_size(width: int, height: int) -> bytes:
    """A valid header with next to no data: what a decompression bomb looks like."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", data)
        + _chunk(b"IEND", b"")
    )


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"

SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>'
HEIC = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(100)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"

BAD = {
    "nothing": (b"", "empty image"),
    "text": (b"<html>not found</html>", "undecodable"),
    "zeros": (bytes(2000), "undecodable"),
    "svg": (SVG, "svg without a decoder"),
    "heic": (HEIC, "heic without a decoder"),
    "eps": (EPS, "undecodable"),
    "jpeg xl": (b"\xff\x0a" + bytes(100), "jpeg xl without a decoder"),
    "git lfs": (LFS, "a Git LFS pointer, not the picture (git lfs pull fetches it)"),
    "bomb": (_png_of_size(30_000, 30_000), "over the pixel limit"),
    "png cut": (_encoded(_noise(size=(200, 200)))[:-30_000], "truncated"),
    "jpeg cut": (_encoded(_noise(size=(200, 200)), "JPEG")[:-5_000], "truncated"),
    "jpeg header alone": (_encoded(_noise(), "JPEG")[:50], "truncated"),
    "gif cut": (_encoded(_noise("P"), "GIF")[:-300], "truncated"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_decoded_has_a_reason(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(UndecodableImage) as raised:
        decode(data)
    assert raised.value.reason == reason
    assert image_fault(data) == reason


def test_a_picture_whose_colours_have_no_way_to_rgb_is_known_at_the_scan() -> None:
    data = _encoded(Image.new("LA", (8, 8), (90, 200)), "TIFF")
    # Its tag of extra samples then says that grey was multiplied by alpha already.
    apart, associated = (struct.pack("<HHII", 338, 3, 1, kind) for kind in (2, 1))
    assert apart in data
    data = data.replace(apart, associated)
    with pytest.raises(UndecodableImage) as raised:
        decode(data)
    assert image_fault(data) == raised.value.reason == "undecodable"


GOOD = {
    "jpeg": _encoded(_noise(), "JPEG"),
    "progressive jpeg": _encoded(_noise(), "JPEG", progressive=True),
    "grey jpeg": _encoded(_noise("L"), "JPEG"),
    "cmyk jpeg": _encoded(_noise("CMYK"), "JPEG"),
    "png": _encoded(_noise()),
    "png with alpha": _encoded(_noise("RGBA")),
    "grey png with alpha": _encoded(_noise("LA")),
    "bilevel png": _encoded(_noise("L").convert("1")),
    "palette": _encoded(_noise("RGB").quantize(16)),
    "webp": _encoded(_noise(), "WEBP"),
    "avif": _encoded(_noise(), "AVIF"),
    "bmp": _encoded(_noise(), "BMP"),
    "tiff": _encoded(_noise(), "TIFF"),
    "jpeg 2000": _encoded(_noise(), "JPEG2000"),
    "one pixel": _encoded(_noise(size=(1, 1))),
    "gif": _encoded(_noise("P"), "GIF"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_decoded_is_rgb_of_its_size(name: str) -> None:
    image = decode(GOOD[name])
    assert image.mode == "RGB"
    assert image.size == ((1, 1) if name == "one pixel" else (33, 21))
    assert image_fault(GOOD[name]) is None


def test_lossless_pixels_come_back_exactly() -> None:
    assert np.array_equal(np.asarray(decode(GOOD["png"])), np.asarray(_noise()))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format: str) -> None:
    values = np.array([[0, 257 * 100, 257 * 200, 65535]], dtype=np.uint16)
    pixels = np.asarray(decode(_encoded(Image.fromarray(values), format)))
    assert pixels[0, :, 0].tolist() == [0, 100, 200, 255]


def test_floats_between_zero_and_one_are_the_whole_range() -> None:
    values = np.array([[0.0, 0.2, 0.4]], dtype=np.float32)
    pixels = np.asarray(decode(_encoded(Image.fromarray(values), "TIFF")))
    assert pixels[0, :, 0].tolist() == [0, 51, 102]


def test_what_is_infinite_is_the_end_of_the_finite_range() -> None:
    values = np.array([[-np.inf, 10.0, 30.0, 60.0, np.inf, np.nan]], dtype=np.float32)
    data = _encoded(Image.fromarray(values), "TIFF")
    assert np.asarray(decode(data))[0, :, 0].tolist() == [0, 0, 102, 255, 255, 0]
    assert image_fault(data) is None


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    assert [decode(_encoded(image)).getpixel((x, 0)) for x in (0, 1)] == [
        (255, 255, 255),
        (255, 0, 0),
    ]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    decoded = decode(_encoded(palette, transparency=0))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]


def test_cmyk_comes_out_in_its_colours() -> None:
    cyan = decode(_encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG"))
    red, green, blue = cyan.getpixel((8, 8))
    assert red < 20
    assert min(green, blue) > 235


def test_orientation_is_applied() -> None:
    image = Image.new("RGB", (4, 2), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    turned = decode(_encoded(image, "PNG", exif=exif))
    assert turned.size == (2, 4)
    assert turned.getpixel((1, 0)) == (255, 255, 255)


def test_a_broken_exif_block_is_overlooked() -> None:
    data = _encoded(_noise(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert decode(data).size == (33, 21)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_stands_for_an_animation(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = _encoded(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
    assert decode(data).getpixel((4, 4)) == (255, 0, 0)


def test_the_pixel_limit_is_ours_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(GOOD["png"], max_pixels=1000).size == (33, 21)
    with pytest.raises(UndecodableImage, match="33 x 21 > 692"):
        decode(GOOD["png"], max_pixels=692)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(("format", "named"), [("webp", "WEBP"), ("png", "PNG")])
def test_encoding_loses_nothing(format: str, named: str) -> None:
    data = encode(_noise(), format)
    assert Image.open(io.BytesIO(data)).format == named
    assert np.array_equal(np.asarray(decode(data)), np.asarray(_noise()))
    assert encode(_noise(), format) == data


def test_an_image_too_long_for_webp_becomes_png() -> None:
    assert Image.open(io.BytesIO(encode(Image.new("RGB", (16_384, 1))))).format == "PNG"
    with pytest.raises(ValueError, match="gif"):
        encode(_noise(), "gif")


@pytest.mark.parametrize("workers", [1, 3])
def test_the_inspector_says_what_image_fault_says_in_order(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.dataset.images.BYTES_A_PROCESS", 100)
    images = [None, *[d for d, _ in BAD.values()], *GOOD.values()] * 3
    expected = ["no image", *[r for _, r in BAD.values()], *[None] * len(GOOD)] * 3
    with ImageInspector(workers=workers) as inspector:
        assert inspector.inspect(images) == expected
        assert inspector.inspect([]) == []
        assert inspector.inspect(images[:1]) == ["no image"]


def test_an_image_that_takes_too_long_is_given_up_and_others_go_on() -> None:
    slow = endless_jpeg()
    with ImageInspector(decode_seconds=0.5, workers=1) as inspector:
        inspector.inspect([GOOD["png"]])
        start = time.monotonic()
        assert inspector.inspect([GOOD["png"], slow, GOOD["jpeg"]]) == [
            None,
            "took too long to decode",
            None,
        ]
        assert time.monotonic() - start < 8


def test_a_process_that_dies_costs_one_image_at_most() -> None:
    with ImageInspector(workers=1) as inspector:
        inspector.inspect([GOOD["png"]])
        os.kill(inspector._workers[0]._process.pid, signal.SIGSEGV)
        time.sleep(0.2)
        assert inspector.inspect([GOOD["png"], GOOD["png"]]) == ["crashed its decoder", None]


def test_few_small_images_start_one_process_and_none_is_left_behind() -> None:
    large = GOOD["png"] + bytes(600_000)
    for images, started in (([GOOD["png"]] * 9, 1), ([large] * 9, 3)):
        inspector = ImageInspector(workers=3)
        assert inspector.inspect(images) == [None] * 9
        processes = [one._process for one in inspector._workers if one._process is not None]
        assert len(processes) == started
        inspector.close()
        assert all(process.poll() is not None for process in processes)


def test_processes_end_with_the_one_that_started_them() -> None:
    code = (
        "import os, signal\n"
        "from pipeline.dataset.images import ImageInspector\n"
        "inspector = ImageInspector(workers=1)\n"
        "inspector.inspect([b'x'])\n"
        "print(inspector._workers[0]._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    pid = int(ended.stdout)
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_small_images_are_inspected_at_hundreds_a_second() -> None:
    images = [_encoded(_noise(size=(64, 64)))] * 500
    with ImageInspector(workers=1) as inspector:
        inspector.inspect(images[:1])
        start = time.monotonic()
        inspector.inspect(images)
        assert 500 / (time.monotonic() - start) > 200
