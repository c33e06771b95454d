"""Pictures as they are sent to a server: shrunk, encoded once, without their metadata."""

from __future__ import annotations

import base64
import io
import threading
from dataclasses import dataclass

from PIL import Image

from generators.pictures import shrunk
from generators.service_settings import ServiceSettings


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes of a picture and their media type."""

    content: bytes
    media_type: str

    @property
    def data_url(self) -> str:
        """A ``data:`` address."""
        content = base64.b64encode(self.content).decode("ascii")
        return f"data:{self.media_type};base64,{content}"


class Pictures:
    """The pictures of some requests, each encoded once: a row's for all its candidates, an example's
    for all rows that it grounds.

    Threads may share it; two that ask for one picture at the same time may both encode it.

    Parameters
    ----------
    settings : ServiceSettings
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        # The picture stays beside its bytes, so that its place in memory is not another's.
        self._held: dict[int, tuple[Image.Image, Encoded]] = {}
        self._addresses: dict[int, str] = {}

    def encoded(self, image: Image.Image) -> Encoded:
        """A picture's bytes: a JPEG, or a PNG where the settings want it without loss."""
        with self._lock:
            held = self._held.get(id(image))
        if held is None:
            held = image, self._encode(image)
            with self._lock:
                self._held[id(image)] = held
        return held[1]

    def data_url(self, image: Image.Image) -> str:
        """A picture as a ``data:`` address."""
        if id(image) not in self._addresses:
            self._addresses[id(image)] = self.encoded(image).data_url
        return self._addresses[id(image)]

    def _encode(self, image: Image.Image) -> Encoded:
        settings = self.settings
        clean = shrunk(image, settings.longest_side, settings.background).copy()
        clean.info = {}
        buffer = io.BytesIO()
        if settings.lossless:
            clean.save(buffer, "PNG")
            return Encoded(buffer.getvalue(), "image/png")
        clean.save(buffer, "JPEG", quality=settings.quality)
        return Encoded(buffer.getvalue(), "image/jpeg")
