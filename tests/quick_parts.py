"""Parts without a model: an encoder, a captioner and an image generator that take milliseconds.

Their output depends on their input and seeds alone. The generators note each row they are asked for
(`tests.calls`) before they answer.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from generators.base import Candidate, Generated, derive_seed
from tests.calls import note

SIDE = 32
COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 160, 60),
    "blue": (40, 60, 200),
    "yellow": (230, 200, 40),
    "white": (240, 240, 240),
}


def picture(colour: str, seed: int) -> Image.Image:
    """A noisy square of a colour."""
    noise = np.random.default_rng(seed).integers(-25, 26, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(noise + COLOURS[colour], 0, 255).astype(np.uint8))


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: str
    # Anything, to have another setting.
    style: str = "plain"
    row_seconds: float = 0.0
    # Ids of these endings fail with an error, or get nothing but blanks.
    fails: str | None = None
    blank: str | None = None
    # In so many attempts of run seed 0 every row gets nothing but blanks.
    blank_attempts: int = 0
    # One and the same answer to all seeds of a row.
    same: bool = False

    def models(self) -> dict[str, tuple[str, str | None]]:
        return {}

    def identity(self) -> dict[str, Any]:
        return self.model_dump(exclude={"row_seconds"})


class _Part:
    """Nothing to load."""

    Settings = _Settings

    def __init__(self, settings: _Settings, paths: Mapping[str, Path]) -> None:
        self.settings = settings

    def load(self) -> None:
        pass

    def close(self) -> None:
        pass

    def memory(self) -> int:
        return 0


class QuickEncoder(_Part):
    """Mean colours of an image, and the colours that a text names, in one space."""

    shared_space = True

    def dimension(self, modality: str) -> int:
        return 12

    def encode(self, items: Iterable[Any], modality: str) -> np.ndarray:
        rows = [self._image(i) if modality == "image" else self._text(i) for i in items]
        found = np.asarray(rows, np.float32).reshape(-1, 12)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def _image(self, image: Image.Image) -> np.ndarray:
        small = np.asarray(image.convert("RGB").resize((2, 2)), np.float32).reshape(-1)
        return small / 255 + 0.01

    def _text(self, text: str) -> np.ndarray:
        named = [colour for name, colour in COLOURS.items() if name in text] or [(128, 128, 128)]
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
        jitter = np.random.default_rng(seed).normal(0, 0.02, 12)
        return np.tile(np.mean(named, axis=0) / 255, 4) + 0.01 + np.abs(jitter)


class NotedEncoder(QuickEncoder):
    """Notes each item that it encodes, by modality and a digest of its content."""

    def encode(self, items: Iterable[Any], modality: str) -> np.ndarray:
        held = list(items)
        for item in held:
            content = item.encode() if isinstance(item, str) else item.tobytes()
            note(f"{modality} {hashlib.blake2b(content, digest_size=8).hexdigest()}")
        return super().encode(held, modality)


class CloudedEncoder(QuickEncoder):
    """Images are alike by their noise rather than by colour, which texts tell plainly.

    So what an image has in common with other images misleads, and what its pseudo-text has in
    common with other texts does not.
    """

    def _image(self, image: Image.Image) -> np.ndarray:
        mean = np.asarray(image, np.float32).reshape(-1, 3).mean(axis=0)
        near = [float(np.abs(mean - colour).sum()) for colour in COLOURS.values()]
        seed = int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=4).digest(), "little")
        cloud = np.random.default_rng(seed).normal(size=7)
        return np.concatenate([0.3 * np.eye(5)[np.argmin(near)], cloud / np.linalg.norm(cloud)])

    def _text(self, text: str) -> np.ndarray:
        named = [name in text for name in COLOURS]
        return np.concatenate([named, np.full(7, 0.01)])


class _Generator(_Part):
    """Asks `_draw` for each candidate."""

    def generate(self, requests: Sequence[Any]) -> list[Generated]:
        answers = []
        for request in requests:
            note(request.row_id)
            time.sleep(self.settings.row_seconds)
            if self.settings.fails and request.row_id.endswith(self.settings.fails):
                answers.append(Generated(request.row_id, (), "the server said 500"))
                continue
            blank, same = self._is_blank(request), derive_seed(0, request.row_id, 0, 0)
            made = (
                replace(
                    self._draw(request, same if self.settings.same else seed, blank),
                    seed=seed,
                    shown=tuple(example.id for example in request.examples),
                )
                for seed in request.seeds
            )
            answers.append(Generated(request.row_id, tuple(made)))
        return answers

    def _is_blank(self, request: Any) -> bool:
        if self.settings.blank and request.row_id.endswith(self.settings.blank):
            return True
        # A request may be for any of a row's candidates.
        return request.seeds[0] in {
            derive_seed(0, request.row_id, n, attempt)
            for attempt in range(1, self.settings.blank_attempts + 1)
            for n in range(10)
        }

    def _draw(self, request: Any, seed: int, blank: bool) -> Candidate:
        raise NotImplementedError


class QuickCaptioner(_Generator):
    """Names the nearest colour, with a number from the seed and how many examples there are."""

    def _draw(self, request: Any, seed: int, blank: bool) -> Candidate:
        mean = np.asarray(request.image, np.float32).reshape(-1, 3).mean(axis=0)
        name = min(COLOURS, key=lambda colour: float(np.abs(mean - COLOURS[colour]).sum()))
        number = (seed + len(request.examples)) % 97
        text = f"a {self.settings.style} {name} square, number {number}"
        return Candidate(seed, "a caption:", text=" " if blank else text)


class QuickPainter(_Generator):
    """A noisy square of the colour that the text names, the noise drawn from the seed."""

    def _draw(self, request: Any, seed: int, blank: bool) -> Candidate:
        name = next((colour for colour in COLOURS if colour in request.text), "white")
        image = Image.new("RGB", (SIDE, SIDE), "black") if blank else picture(name, seed % 2**32)
        return Candidate(seed, request.text, image=image)
