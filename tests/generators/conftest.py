"""Tiny real models and pictures that the tests of the generators share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from generators.base import CaptionRequest, Example
from tests.generators import tiny_captioners, tiny_sdxl
from tests.generators.server import Server


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the tiny checkpoints of this session lie in."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def blip2_opt(models: Path) -> Path:
    return tiny_captioners.blip2(models / "blip2-opt", "opt")


@pytest.fixture(scope="session")
def blip2_t5(models: Path) -> Path:
    return tiny_captioners.blip2(models / "blip2-t5", "t5")


@pytest.fixture(scope="session")
def llava(models: Path) -> Path:
    return tiny_captioners.llava(models / "llava")


@pytest.fixture(scope="session")
def qwen2_vl(models: Path) -> Path:
    return tiny_captioners.qwen2_vl(models / "qwen2-vl")


@pytest.fixture(scope="session")
def sdxl(models: Path) -> Path:
    return tiny_sdxl.sdxl(models / "sdxl")


@pytest.fixture(scope="session")
def ip_adapter(models: Path, sdxl: Path) -> Path:
    return tiny_sdxl.ip_adapter(models / "ip-adapter", sdxl)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def picture(number: int, size: tuple[int, int] = (48, 48)) -> Image.Image:
    """A picture of its own for every number: coloured shapes on a coloured ground."""
    random = np.random.default_rng(number)
    image = Image.new("RGB", size, tuple(random.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        left, top = (random.integers(0, side // 2) for side in size)
        width, height = (random.integers(side // 8, side // 2) for side in size)
        draw.ellipse(
            (left, top, left + width, top + height), fill=tuple(random.integers(0, 256, 3).tolist())
        )
    return image


@pytest.fixture
def pictures() -> Callable[..., Image.Image]:
    return picture


@pytest.fixture
def examples() -> Callable[..., tuple[Example, ...]]:
    """Makes the examples of a row: pairs ``first``, ``first + 1``, and so on."""

    def make(count: int, first: int = 100) -> tuple[Example, ...]:
        captions = ("a red hat", "a small green bird", "the old boat with a fish", "two cats")
        return tuple(
            Example(f"pair-{number}", f"{captions[number % len(captions)]}", picture(number))
            for number in range(first, first + count)
        )

    return make


@pytest.fixture
def ask(pictures: Callable[..., Image.Image]) -> Callable[..., CaptionRequest]:
    """Makes requests for captions of one picture."""

    def ask(*seeds: int, row: str = "row", examples: tuple[Example, ...] = ()) -> CaptionRequest:
        return CaptionRequest(row, pictures(0), examples, seeds)

    return ask
