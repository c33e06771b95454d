"""The file of a picture as it may be sent: the same pixels, and nothing beside them.

What a camera or a program wrote beside a picture (where and when it was taken, by whom, a thumbnail of
what was cropped away) is left out by copying the parts that hold the pixels, without encoding anew.
"""

from __future__ import annotations

import io
import re

from PIL import Image

# WebP is left out: some servers read pictures by libraries that don't know it.
MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png"}
# Modes that servers read as we do; CMYK, 16 bits and transparency are converted here.
_MODES = frozenset({"1", "L", "P", "RGB"})
_ORIENTATION = 0x0112
_UPRIGHT = (None, 1)

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PIXELS_OF_PNG = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
# Tables, and frame headers that every decoder knows.
_KEPT_OF_JPEG = frozenset({0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD})
# What JFIF and Adobe say of the colours: marker, start and length; a longer one holds a thumbnail.
_COLOURS = {0xE0: (b"JFIF\0", 16), 0xEE: (b"Adobe", 14)}
_SCAN, _END = 0xDA, 0xD9
# A marker within a scan: not a stuffed zero, a restart or a fill byte.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


def bare_file(data: bytes, size: tuple[int, int]) -> tuple[bytes, str] | None:
    """A file's pixels alone, and its media type; None where it has to be encoded anew.

    Parameters
    ----------
    data : bytes
        An encoded picture.
    size : (int, int)
        Width and height that it was decoded to; another size is another picture.

    Returns
    -------
    (bytes, str) or None
        A JPEG or a PNG without metadata, of the same pixels; None for other formats, for what is
        turned by its metadata, transparent or animated, and for a file whose parts can't be told.
    """
    try:
        with Image.open(io.BytesIO(data), formats=tuple(MEDIA_TYPES)) as image:
            told = image.format
            plain = (
                image.mode in _MODES
                and image.size == size
                and not image.has_transparency_data
                and getattr(image, "n_frames", 1) == 1
                and image.getexif().get(_ORIENTATION) in _UPRIGHT
            )
    except Exception:  # noqa: BLE001  Pillow's plugins raise anything
        return None
    if not plain or told is None:
        return None
    bare = _bare_jpeg(data) if told == "JPEG" else _bare_png(data)
    return None if bare is None else (bare, MEDIA_TYPES[told])


def _bare_png(data: bytes) -> bytes | None:
    """The chunks that hold pixels; None for a file that ends before its last one."""
    kept, place = [_PNG_START], len(_PNG_START)
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big") + 12
        kind = data[place + 4 : place + 8]
        if place + size > len(data):
            return None
        if kind in _PIXELS_OF_PNG:
            kept.append(data[place : place + size])
        if kind == b"IEND":
            return b"".join(kept)
        place += size
    return None


def _bare_jpeg(data: bytes) -> bytes | None:
    """The segments that hold pixels, up to the end of the image; None for one that can't be walked."""
    kept, place = [data[:2]], 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == _END:
            break
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _SCAN:
            following = _MARKER.search(data, end)
            if following is None:
                return None
            end = following.start()
        start, length = _COLOURS.get(marker, (b"", 0))
        of_colours = end - place - 2 == length and data.startswith(start, place + 4)
        if marker == _SCAN or marker in _KEPT_OF_JPEG or of_colours:
            kept.append(data[place:end])
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            return None
        place = end
    return b"".join([*kept, b"\xff\xd9"]) if data[place : place + 2] == b"\xff\xd9" else None
