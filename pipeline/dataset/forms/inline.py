"""Images written out as text where a path may stand: base64, bare or as a data URI.

Its lines may be broken, its alphabet that of addresses, and what fills its last four letters left out.
"""

from __future__ import annotations

import base64
import binascii
import re

_DATA_URI = re.compile(r"data:(image/[\w.+-]+)?(;[\w=.+-]+)*;base64,", re.IGNORECASE)
# Of JPEG, PNG, GIF, BMP, WebP, TIFF: a path hardly begins so, and never goes on for so long.
_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "Qk", "UklGR", "SUkqA", "TU0AK")
_SHORTEST = 64
_OF_ADDRESSES = str.maketrans("-_", "+/")


def inline_image(text: str) -> bytes | None:
    """The bytes of an image that a text holds; None where it holds none.

    Examples
    --------
    >>> inline_image("data:image/gif;base64,R0lGODlh"), inline_image("a.gif")
    (b'GIF89a', None)
    """
    text = text.strip()
    uri = _DATA_URI.match(text)
    if uri is None and (len(text) < _SHORTEST or not text.startswith(_STARTS)):
        return None
    written = "".join(text[uri.end() if uri else 0 :].split()).translate(_OF_ADDRESSES)
    written = written.rstrip("=")
    try:
        return base64.b64decode(written + "=" * (-len(written) % 4), validate=uri is None)
    except (binascii.Error, ValueError):
        return None
