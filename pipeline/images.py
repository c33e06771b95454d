"""Images as they come: decoding whatever people store, and finding out what cannot be decoded.

`decode` runs in the calling process; `ImageInspector` tries images in processes that it can kill,
so that no file can hang a run. This module is also what such a process runs, as a script: it
imports nothing but the standard library, Pillow and (for 16-bit images) NumPy.
"""

from __future__ import annotations

import io
import logging
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO, Self

from PIL import Image, ImageOps, UnidentifiedImageError

logger = logging.getLogger(__name__)

MAX_PIXELS = 100_000_000
DECODE_SECONDS = 10.0

# Only formats that Pillow decodes by itself: EPS, for one, would hand the file to Ghostscript.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF"),
    *("JPEG2000", "PPM", "TGA", "ICO", "PCX", "QOI"),
)
_WEBP_SIDE = 16_383
_HEADER = struct.Struct("<qqd")
_OPENING = threading.Lock()


class UndecodableImage(ValueError):
    """An image that cannot be had from its bytes.

    Attributes
    ----------
    reason
        Why, in a word or two: "empty", "undecodable", "truncated", "over the pixel limit",
        "svg without a decoder", "heic without a decoder", "out of memory".
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image to 8-bit RGB, upright, the first frame of an animation.

    16-bit samples are scaled to 8 bits, transparency is laid on white, CMYK is converted without
    colour management.

    Parameters
    ----------
    data
        The encoded file.
    max_pixels
        The most pixels (width x height) that are decoded; the header is asked first.

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
        image.load()
        try:
            image = ImageOps.exif_transpose(image)
        except Exception:  # noqa: BLE001  a broken EXIF block says nothing about the picture
            logger.debug("EXIF block that cannot be read: orientation left as it is")
        return _to_rgb(image)
    except Exception as error:  # noqa: BLE001  Pillow's plugins raise anything
        raise _undecodable(error) from None


def image_fault(data: bytes | None, max_pixels: int = MAX_PIXELS) -> str | None:
    """Say why an image cannot be decoded, or None if it can, in the calling process.

    All of the file is read; a JPEG at an eighth of its size, which finds a cut file at a third of
    the cost. For files that may hang a decoder use `ImageInspector`.
    """
    if data is None:
        return "null"
    try:
        image = _open(data, max_pixels)
        if image.format == "JPEG":
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except UndecodableImage as fault:
        return fault.reason
    except Exception as error:  # noqa: BLE001  Pillow's plugins raise anything
        return _undecodable(error).reason
    return None


def encode(image: Image.Image, format: str = "webp") -> bytes:
    """Encode an image without loss, for generated pictures.

    Parameters
    ----------
    image
        Any size; WebP holds at most 16,383 pixels a side, larger images become PNG.
    format
        "webp" or "png".

    Raises
    ------
    ValueError
        If `format` is neither.
    """
    if format not in ("webp", "png"):
        raise ValueError(f"format must be webp or png; got {format!r}")
    buffer = io.BytesIO()
    if format == "webp" and max(image.size) <= _WEBP_SIDE:
        image.save(buffer, "WEBP", lossless=True, quality=60, method=3, exact=True)
    else:
        image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise UndecodableImage("empty")
    try:
        # Pillow's own limit is a process-wide number: ours is asked right after the header.
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.init()
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(io.BytesIO(data), formats=FORMATS)
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


def _sniff(data: bytes) -> str:
    """Name what is known but has no decoder here."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (
        start.startswith((b"<?xml", b"<!")) and b"<svg" in start
    ):
        return "svg without a decoder"
    if data[4:8] == b"ftyp" and data[8:12] in (
        b"heic",
        b"heix",
        b"hevc",
        b"heim",
        b"mif1",
    ):
        return "heic without a decoder"
    return "undecodable"


def _undecodable(error: Exception) -> UndecodableImage:
    if isinstance(error, UndecodableImage):
        return error
    if isinstance(error, MemoryError):
        return UndecodableImage("out of memory")
    said = str(error)
    cut = any(
        word in said.lower()
        for word in ("truncated", "broken data stream", "unexpected end")
    )
    return UndecodableImage("truncated" if cut else "undecodable", said[:200])


def _to_rgb(image: Image.Image) -> Image.Image:
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

    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" and 0 <= low and high <= 1:
        low, high = 0.0, 1.0
    elif image.mode == "F" or low < 0 or high > 65_535:
        high = max(high, low + 1)
    else:
        low, high = 0.0, 65_535.0 if high > 255 or image.mode != "I" else 255.0
    scaled = (values - low) * (255.0 / (high - low))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


class ImageInspector:
    """Try images in processes that are killed when one takes too long.

    A process is started with the first image and kept; each image costs a round trip over a pipe
    (tens of microseconds) and its decoding. Use as a context manager; may be shared by threads.

    Parameters
    ----------
    max_pixels
        The most pixels that are decoded.
    decode_seconds
        The time limit for one image; past it the process is killed and the reason is "timeout".
    workers
        How many processes; by default as many as there are usable cores, at most 8.

    Examples
    --------
    >>> with ImageInspector(workers=1) as inspector:
    ...     inspector.inspect([b"no image"])
    ['undecodable']
    """

    def __init__(
        self,
        max_pixels: int = MAX_PIXELS,
        decode_seconds: float = DECODE_SECONDS,
        workers: int | None = None,
    ) -> None:
        self.max_pixels = max_pixels
        self.decode_seconds = decode_seconds
        count = workers or min(
            8, len(os.sched_getaffinity(0)) if _AFFINITY else os.cpu_count() or 1
        )
        self._workers = [_Worker(max_pixels, decode_seconds) for _ in range(count)]
        self._threads = ThreadPoolExecutor(count) if count > 1 else None
        self._lock = threading.Lock()

    def inspect(self, images: Sequence[bytes | None]) -> list[str | None]:
        """Say of each image why it cannot be decoded, or None if it can, in order.

        Besides the reasons of `UndecodableImage`: "null" for None, "timeout", and "crashed" when
        the decoder took its process down.
        """
        with self._lock:
            if self._threads is None or len(images) < 2:
                return self._workers[0].inspect(images)
            count = len(self._workers)
            strides = [images[start::count] for start in range(count)]
            faults: list[str | None] = [None] * len(images)
            found = self._threads.map(_Worker.inspect, self._workers, strides)
            for start, part in enumerate(found):
                faults[start::count] = part
            return faults

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.kill()
        if self._threads is not None:
            self._threads.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_AFFINITY = hasattr(os, "sched_getaffinity")


class _Worker:
    """One process at the other end of two pipes: an image goes in, its fault comes out."""

    def __init__(self, max_pixels: int, seconds: float) -> None:
        self.max_pixels = max_pixels
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def inspect(self, images: Sequence[bytes | None]) -> list[str | None]:
        return ["null" if data is None else self._ask(data) for data in images]

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        # A plain script in a fresh interpreter: forking would copy CUDA and threads, and
        # multiprocessing would run the caller's __main__ again. -P keeps this folder off sys.path.
        process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert process.stdout is not None
        if (
            process.stdout.read(1) != b"+"
        ):  # its imports are not on the first image's clock
            code = process.wait()
            raise RuntimeError(
                f"the process that decodes images did not start (status {code})"
            )
        return process

    def _ask(self, data: bytes) -> str | None:
        if self._process is None:
            self._process = self._start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        deadline = time.monotonic() + self.seconds
        try:
            _write(
                stdin.fileno(), _HEADER.pack(len(data), self.max_pixels, self.seconds)
            )
            _write(stdin.fileno(), data)
            length = _read(stdout.fileno(), 1, deadline)
            reason = _read(stdout.fileno(), length[0], deadline)
        except TimeoutError:
            self.kill()
            return "timeout"
        except (BrokenPipeError, EOFError):
            self.kill()
            late = time.monotonic() >= deadline
            return "timeout" if late else "crashed"
        return reason.decode() or None


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int, size: int, deadline: float) -> bytes:
    read = b""
    while len(read) < size:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError
        part = os.read(descriptor, size - len(read))
        if not part:
            raise EOFError
        read += part
    return read


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer images until the pipe closes: a length byte and the reason, empty if none."""
    Image.init()
    answers.write(b"+")
    answers.flush()
    while header := requests.read(_HEADER.size):
        size, max_pixels, seconds = _HEADER.unpack(header)
        data = requests.read(size)
        # If whoever would kill this process is gone itself, the alarm ends it.
        signal.setitimer(signal.ITIMER_REAL, seconds + 5)
        reason = (image_fault(data, max_pixels) or "").encode()[:255]
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(bytes([len(reason)]) + reason)
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
