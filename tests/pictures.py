"""Pictures that are hard on whoever decodes them."""

from __future__ import annotations

import io

from PIL import Image


def endless_jpeg() -> bytes:
    """A progressive JPEG whose every scan goes over all of a large picture again."""
    buffer = io.BytesIO()
    Image.new("L", (6000, 6000)).save(buffer, "JPEG", progressive=True, quality=5)
    data = buffer.getvalue()
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    return data[:start] + scan * 400 + data[-2:]
