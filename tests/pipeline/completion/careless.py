"""Parts of one's own that change in place what they were handed, and keep what they received."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from generators.base import CaptionRequest, Generated
from tests.quick_parts import QuickCaptioner, QuickEncoder, QuickPainter


class Careful:
    """Notes every request in `received`, and a digest of it in the prompts of its candidates."""

    received: ClassVar[list[tuple[Any, ...]]] = []

    def generate(self, requests: Sequence[Any]) -> list[Generated]:
        told = [_told(request) for request in requests]
        self.received += told
        answers: list[Generated] = super().generate(requests)  # type: ignore[misc]
        return [
            replace(
                answer,
                candidates=tuple(
                    replace(made, prompt=f"received {_hashed(repr(one).encode())}")
                    for made in answer.candidates
                ),
            )
            for one, answer in zip(told, answers, strict=True)
        ]


class Careless(Careful):
    """Spoils what it was handed once it has answered: the list is reversed, no picture is left whole."""

    def generate(self, requests: Sequence[Any]) -> list[Generated]:
        answers = super().generate(requests)
        assert isinstance(requests, list)
        requests.reverse()
        for request in requests:
            pictures = [example.image for example in request.examples]
            for image in [*pictures, getattr(request, "image", None)]:
                if image is not None:
                    _spoil(image)
        return answers


class CarefulCaptioner(Careful, QuickCaptioner):
    pass


class CarefulPainter(Careful, QuickPainter):
    pass


class CarelessCaptioner(Careless, QuickCaptioner):
    pass


class CarelessPainter(Careless, QuickPainter):
    pass


class Sorter(QuickCaptioner):
    """Sorts the list that it was handed, and answers in that order."""

    def generate(self, requests: Any) -> list[Generated]:
        requests.sort(key=lambda request: request.row_id, reverse=True)
        return super().generate(requests)


class CarefulEncoder(QuickEncoder):
    pass


class CarelessEncoder(QuickEncoder):
    """Spoils pictures and the list once they are embedded."""

    def encode(self, items: Iterable[Any], modality: str) -> np.ndarray:
        held = list(items)
        found = super().encode(held, modality)
        for item in held:
            if isinstance(item, Image.Image):
                _spoil(item)
        if isinstance(items, list):
            items.clear()
        return found


def _spoil(image: Image.Image) -> None:
    ImageDraw.Draw(image).rectangle((0, 0, *image.size), "black")
    image.info["spoilt"] = True
    image.thumbnail((4, 4))
    image.close()


def _told(request: Any) -> tuple[Any, ...]:
    observed = _digest(request.image) if isinstance(request, CaptionRequest) else request.text
    examples = tuple((one.id, one.text, _digest(one.image)) for one in request.examples)
    return request.row_id, observed, examples, request.seeds, request.numbers


def _digest(image: Image.Image | None) -> str | None:
    if image is None:
        return None
    return _hashed(repr((image.size, image.info)).encode() + image.convert("RGB").tobytes())


def _hashed(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
