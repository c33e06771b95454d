"""Whether a picture's own file says what it shows: in EXIF, IPTC or XMP, or in the texts of a PNG.

Archives and photographers write captions there. They are not read as texts, for cameras and programs
write their names into the same fields; that there are any is told before others are generated.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator

from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

from pipeline.dataset.decoding import FORMATS

# Of EXIF what describes a picture; the names that begin with XP are Windows', in UTF-16.
_EXIF = (ExifTags.Base.ImageDescription, ExifTags.Base.XPTitle, ExifTags.Base.XPComment)
_PNG = ("Description", "Caption", "Title", "Comment", "ImageDescription", "parameters")
_IPTC_CAPTION = (2, 120)
_XMP = re.compile(r"<dc:(?:description|title)\b.*?<rdf:li[^>]*>([^<]+)<", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]{2,}")
# What programs and cameras put into these fields by themselves.
_OF_PROGRAMS = re.compile(
    r"(created|made|edited|processed|captured|generated|exported) (with|using)\b|digital camera"
    r"|software|\bscreenshot\b|\bcopyright\b",
    re.IGNORECASE,
)
_FEWEST_WORDS = 2


def describes_itself(data: bytes) -> bool:
    """Whether the file of a picture, one that can be decoded, holds what looks like a caption of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which do not matter to a header
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return any(map(_is_caption, _told(image)))
    except Exception:  # noqa: BLE001  Pillow's plugins raise anything, and nothing depends on it
        return False


def _told(image: ImageFile.ImageFile) -> Iterator[str]:
    """The texts in an image's header."""
    for name in _PNG:
        if isinstance(text := image.info.get(name), str):
            yield text
    exif = image.getexif()
    for tag in _EXIF:
        value = exif.get(tag)
        if isinstance(value, bytes):
            value = value.decode("utf-16-le", "replace")
        if isinstance(value, str):
            yield value
    iptc = IptcImagePlugin.getiptcinfo(image) or {}
    for caption in _listed(iptc.get(_IPTC_CAPTION)):
        yield caption.decode("utf-8", "replace")
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    text = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
    yield from _XMP.findall(text)


def _listed(value: bytes | list[bytes] | None) -> list[bytes]:
    return value if isinstance(value, list) else [value] if value is not None else []


def _is_caption(text: str) -> bool:
    words = _WORD.findall(text)
    if len(words) < _FEWEST_WORDS or _OF_PROGRAMS.search(text):
        return False
    # Cameras write their makers in capitals.
    return not text.isupper()
