"""Pictures as they are sent to a server: within a size, encoded once, without their metadata."""

from __future__ import annotations

import base64
import io
import weakref
from dataclasses import dataclass

from PIL import Image

from generators.original_files import bare_file
from generators.pictures import MOST_RATIO, shrunk
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


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a multipart request."""

    field: str
    name: str
    content: bytes
    media_type: str


class Pictures:
    """The pictures of some requests, each encoded once: a row's for all its candidates, an example's
    for all rows that it grounds.

    What was encoded is held as long as the picture is by someone else. Threads may share it; two that
    ask for one picture at the same time may both encode it.

    Parameters
    ----------
    settings : ServiceSettings
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        # By place in memory, which is another picture's once the reference is dead.
        self._held: dict[int, tuple[weakref.ref[Image.Image], Encoded]] = {}
        self._addresses: dict[int, tuple[weakref.ref[Image.Image], str]] = {}

    def encoded(self, image: Image.Image, file: bytes | None = None) -> Encoded:
        """A picture's bytes: its own file's pixels where they may go as they are, else a JPEG.

        Where the settings want it without loss, a PNG.

        Parameters
        ----------
        image : PIL.Image.Image
        file : bytes or None
            What it was decoded from, where that is at hand.
        """
        place = id(image)
        held = self._held.get(place)
        if held is None or held[0]() is not image:
            gone = weakref.ref(image, lambda _: self._held.pop(place, None))
            held = self._held[place] = gone, self._as_it_is(image, file) or self._encode(image)
        return held[1]

    def data_url(self, image: Image.Image, file: bytes | None = None) -> str:
        """A picture as a ``data:`` address."""
        place = id(image)
        held = self._addresses.get(place)
        if held is None or held[0]() is not image:
            gone = weakref.ref(image, lambda _: self._addresses.pop(place, None))
            held = self._addresses[place] = gone, self.encoded(image, file).data_url
        return held[1]

    def _as_it_is(self, image: Image.Image, file: bytes | None) -> Encoded | None:
        settings = self.settings
        if file is None or len(file) > settings.original_bytes:
            return None
        if max(image.size) > min(settings.longest_side, MOST_RATIO * min(image.size)):
            return None
        found = bare_file(file, image.size)
        if found is None or (settings.lossless and found[1] != "image/png"):
            return None
        return Encoded(*found)

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
