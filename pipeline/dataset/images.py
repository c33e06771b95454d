"""Images as they come and as they are kept: tried in processes that can be killed, and encoded.

No file can hang a run: `ImageInspector` tries each within a time limit. `decode` is for images that
it found nothing wrong with.
"""

from __future__ import annotations

import io
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from PIL import Image

from pipeline.dataset import decoding
from pipeline.dataset.decoding import HEADER, MAX_PIXELS, UndecodableImage, decode, image_fault

__all__ = [
    "DECODE_SECONDS",
    "MAX_PIXELS",
    "ImageInspector",
    "UndecodableImage",
    "decode",
    "encode",
    "image_fault",
]

DECODE_SECONDS = 10.0

# One process decodes so many in about the time that another takes to start.
BYTES_A_PROCESS = 1 << 20

TOO_LONG = "took too long to decode"
CRASHED = "crashed its decoder"

_WEBP_SIDE = 16_383


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


class ImageInspector:
    """Try images in processes that are killed when one takes too long.

    A process is started with the first image and kept; each image costs a round trip over a pipe
    (tens of microseconds) and its decoding. Use as a context manager; may be shared by threads.

    Parameters
    ----------
    max_pixels
        The most pixels that are decoded.
    decode_seconds
        The time limit for one image; past it the process is killed and the reason is
        "took too long to decode".
    workers
        The most processes; by default as many as there are usable cores, at most 8. Few small images
        are left to one.

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

        Besides the reasons of `UndecodableImage`: "no image" for None, "took too long to decode", and
        "crashed its decoder".
        """
        size = sum(len(data) for data in images if data is not None)
        count = min(len(self._workers), len(images), 1 + size // BYTES_A_PROCESS)
        with self._lock:
            if self._threads is None or count < 2:
                return self._workers[0].inspect(images)
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
        return ["no image" if data is None else self._ask(data) for data in images]

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
            [sys.executable, "-P", decoding.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert process.stdout is not None
        if process.stdout.read(1) != b"+":  # its imports are not on the first image's clock
            code = process.wait()
            raise RuntimeError(f"the process that decodes images did not start (status {code})")
        return process

    def _ask(self, data: bytes) -> str | None:
        if self._process is None:
            self._process = self._start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        deadline = time.monotonic() + self.seconds
        try:
            _write(stdin.fileno(), HEADER.pack(len(data), self.max_pixels, self.seconds))
            _write(stdin.fileno(), data)
            length = _read(stdout.fileno(), 1, deadline)
            reason = _read(stdout.fileno(), length[0], deadline)
        except TimeoutError:
            self.kill()
            return TOO_LONG
        except (BrokenPipeError, EOFError):
            self.kill()
            late = time.monotonic() >= deadline
            return TOO_LONG if late else CRASHED
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
