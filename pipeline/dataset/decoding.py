"""Decoding images of whatever kind people store, to 8-bit RGB.

`pipeline.dataset.images` also runs this file as a script, as the process that it can kill: it imports
nothing but the standard library, Pillow and (for 16-bit images) NumPy.
"""

from __future__ import annotations

import io
import logging
import signal
import struct
import sys
import threading
import warnings
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

logger = logging.getLogger(__name__)

MAX_PIXELS = 100_000_000

# Before each image that is sent to the script: its size, the pixel limit, the time limit.
HEADER = struct.Struct("<qqd")

# Only formats that Pillow decodes by itself: EPS, for one, would hand the file to Ghostscript.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF"),
    *("JPEG2000", "PPM", "TGA", "ICO", "PCX", "QOI"),
)
_OPENING = threading.Lock()


class UndecodableImage(ValueError):
    """An image that cannot be had from its bytes.

    Attributes
    ----------
    reason
        Why, in a word or two: "empty image", "undecodable", "truncated", "over the pixel limit",
        "svg without a decoder", "heic without a decoder", "jpeg xl without a
        decoder", "a Git LFS pointer…", "out of memory".
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def decode(data: bytes, max_pixels: int = MAX_PIXELS, least_side: int | None = None) -> Image.Image:
    """Decode an image to 8-bit RGB, upright, the first frame of an animation.

    16-bit samples are scaled to 8 bits, transparency is laid on white, CMYK is converted without
    colour management.

    Parameters
    ----------
    data
        The encoded file.
    max_pixels
        The most pixels (width x height) that are decoded; the header is asked first.
    least_side
        A JPEG is decoded at the smallest of its own scales (halves, quarters, eighths) whose
        shorter side has at least so many pixels; other formats have none, and come as they are.

    Returns
    -------
    PIL.Image.Image
        Mode "RGB", height and width after EXIF orientation.

    Raises
    ------
    UndecodableImage
        With the reason, also when the file would be over `max_pixels`.
    """
    image = _open(data, max_pixels)
    try:
        if least_side is not None:
            _at_scale(image, least_side)
        image = _load(image, data, max_pixels)
        try:
            image = ImageOps.exif_transpose(image)
        except Exception:  # noqa: BLE001  a broken EXIF block says nothing about the picture
            logger.debug("EXIF block that cannot be read: orientation left as it is")
        return to_rgb(image)
    except Exception as error:  # noqa: BLE001  Pillow's plugins raise anything
        raise _undecodable(error) from None


def image_fault(data: bytes | None, max_pixels: int = MAX_PIXELS) -> str | None:
    """Say why an image cannot be decoded, or None if it can, in the calling process.

    All of the file is read and converted as `decode` does it; a JPEG at an eighth of its size,
    which finds a cut file at a third of the cost. For files that may hang a decoder use `ImageInspector`.
    """
    if data is None:
        return "no image"
    try:
        image = _open(data, max_pixels)
        _at_scale(image, 1)
        to_rgb(_load(image, data, max_pixels))
    except UndecodableImage as fault:
        return fault.reason
    except Exception as error:  # noqa: BLE001  Pillow's plugins raise anything
        return _undecodable(error).reason
    return None


def _at_scale(image: Image.Image, least_side: int) -> None:
    """Have a JPEG decoded at the smallest of its own scales that is large enough."""
    if image.format in ("JPEG", "MPO"):
        image.draft("RGB", (least_side, least_side))


def _load(image: Image.Image, data: bytes, max_pixels: int) -> Image.Image:
    """The image with its pixels; a PNG's texts may also stand behind them."""
    try:
        image.load()
    except ValueError as error:
        if not _too_much_told(error):
            raise
        image = _open(without_texts(data), max_pixels)
        image.load()
    return image


def _too_much_told(error: Exception) -> bool:
    """Whether Pillow refuses a PNG for the size of its texts or its colour profile."""
    return "MAX_TEXT_CHUNK" in str(error) or "MAX_TEXT_MEMORY" in str(error)


def without_texts(png: bytes) -> bytes:
    """A PNG without its texts and its colour profile, which change no pixel here.

    Pillow unpacks at most a megabyte of each, lest a few bytes become gigabytes, and so refuses
    pictures with the large profiles of scanners and printers.
    """
    kept, place = [png[:8]], 8
    while place + 12 <= len(png):
        size = int.from_bytes(png[place : place + 4], "big") + 12
        if png[place + 4 : place + 8] not in (b"iCCP", b"tEXt", b"zTXt", b"iTXt"):
            kept.append(png[place : place + size])
        place += size
    return b"".join(kept)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise UndecodableImage("empty image")
    try:
        # Pillow's own limit is a process-wide number: ours is asked right after the header.
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.init()
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = _identify(data)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except UnidentifiedImageError:
        raise UndecodableImage(_sniff(data)) from None
    except Exception as error:  # noqa: BLE001  Pillow's plugins raise anything
        raise _undecodable(error) from None
    if image.width * image.height > max_pixels:
        raise UndecodableImage(
            "over the pixel limit", f"{image.width} x {image.height} > {max_pixels}"
        )
    return image


def _identify(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except ValueError as error:
        if not _too_much_told(error):
            raise
        return Image.open(io.BytesIO(without_texts(data)), formats=FORMATS)


def _sniff(data: bytes) -> str:
    """Name what is known but has no decoder here."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!")) and b"<svg" in start):
        return "svg without a decoder"
    if data[4:8] == b"ftyp" and data[8:12] in (
        b"heic",
        b"heix",
        b"hevc",
        b"heim",
        b"mif1",
    ):
        return "heic without a decoder"
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "jpeg xl without a decoder"
    if data.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, not the picture (git lfs pull fetches it)"
    return "undecodable"


def _undecodable(error: Exception) -> UndecodableImage:
    if isinstance(error, UndecodableImage):
        return error
    if isinstance(error, MemoryError):
        return UndecodableImage("out of memory")
    said = str(error)
    cut = any(
        word in said.lower() for word in ("truncated", "broken data stream", "unexpected end")
    )
    return UndecodableImage("truncated" if cut else "undecodable", said[:200])


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale samples of more than 8 bits: full 16-bit range if they fit it, else their own range."""
    import numpy as np

    values = np.asarray(image, dtype=np.float32)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif image.mode == "F" or low < 0 or high > 65_535:
        high = max(high, low + 1)
    else:
        low, high = 0.0, 65_535.0 if high > 255 or image.mode != "I" else 255.0
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    with np.errstate(over="ignore"):
        scaled = (values - low) * (255.0 / (high - low))
    return Image.fromarray(np.rint(scaled).clip(0, 255).astype(np.uint8))


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer images until the pipe closes: a length byte and the reason, empty if none."""
    Image.init()
    answers.write(b"+")
    answers.flush()
    while header := requests.read(HEADER.size):
        size, max_pixels, seconds = HEADER.unpack(header)
        data = requests.read(size)
        # If whoever would kill this process is gone itself, the alarm ends it.
        signal.setitimer(signal.ITIMER_REAL, seconds + 5)
        reason = (image_fault(data, max_pixels) or "").encode()[:255]
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(bytes([len(reason)]) + reason)
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
