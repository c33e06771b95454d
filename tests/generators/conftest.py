"""Tiny real models and pictures that the tests of the generators share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from generators import CAPTIONERS, IMAGE_GENERATORS
from generators.base import CaptionRequest, Example, ImageRequest, derive_seed
from tests.generators import tiny_captioners, tiny_pipelines, tiny_sdxl
from tests.generators.cases import class_of
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


@pytest.fixture(scope="session")
def stable_diffusion(models: Path) -> Path:
    return tiny_pipelines.stable_diffusion(models / "stable-diffusion")


@pytest.fixture(scope="session")
def stable_diffusion_3(models: Path) -> Path:
    return tiny_pipelines.stable_diffusion_3(models / "stable-diffusion-3")


@pytest.fixture(scope="session")
def kontext(models: Path) -> Path:
    return tiny_pipelines.kontext(models / "kontext")


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


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a generator of a case, over the tiny checkpoint of its kind."""

    def make(role: str, case: str, **settings: Any) -> Any:
        kind, _, variant = case.partition("-")
        registry = CAPTIONERS if role == "captioner" else IMAGE_GENERATORS
        cls = class_of(kind, registry)
        paths = {}
        values: dict[str, Any] = {"kind": kind}
        if kind == "blip2":
            paths["model"] = request.getfixturevalue(f"blip2_{variant}")
            values |= {"model": "tiny", "max_new_tokens": 8, "batch_size": 5}
        elif kind == "vlm":
            paths["model"] = request.getfixturevalue(variant)
            values |= {"model": "tiny", "max_new_tokens": 8, "batch_size": 5}
        elif kind == "sdxl":
            paths["model"] = request.getfixturevalue("sdxl")
            paths["ip_adapter"] = request.getfixturevalue("ip_adapter")
            values |= {"model": "tiny", "grounding": variant, "steps": 2, "batch_size": 5}
        elif kind == "diffusers":
            family, _, grounding = variant.partition("/")
            paths["model"] = request.getfixturevalue(family)
            values |= {"model": "tiny", "grounding": grounding, "steps": 2, "batch_size": 5}
            # Two steps of which img2img leaves out one, so that something of the example is kept.
            values |= {"size": 64, "strength": 0.5}
            if family == "kontext":
                # It would bring each reference to a megapixel.
                values["arguments"] = {"_auto_resize": False}
        elif kind == "openai":
            url = request.getfixturevalue("server").url
            values |= {"base_url": url, "model": "tiny", "send_data": True, "api_key_env": None}
        return cls(cls.Settings.model_validate(values | settings), paths)

    return make


@pytest.fixture(scope="module")
def kept() -> dict[tuple[str, str], Any]:
    """Generators that stay loaded from test to test."""
    return {}


@pytest.fixture
def loaded(make: Callable[..., Any], kept: dict[tuple[str, str], Any]) -> Callable[..., Any]:
    """Like ``make``, but loads a model once for all tests that only ask it."""

    def loaded(role: str, case: str) -> Any:
        if case in ("openai", "nearest"):
            return make(role, case)
        if (role, case) not in kept:
            kept[role, case] = make(role, case)
        return kept[role, case]

    return loaded


@pytest.fixture
def requests_of(pictures: Any, examples: Any) -> Callable[..., list[Any]]:
    """Makes requests of several rows; the rows have 0, 1 or 2 examples in turn where allowed."""

    def make(role: str, rows: int = 3, seeds: int = 2, bare: bool = True) -> list[Any]:
        made: list[Any] = []
        for row in range(rows):
            ids = tuple(derive_seed(0, f"row-{row}", number, 1) for number in range(seeds))
            pairs = examples(row % 3 if bare else 1 + row % 2, first=100 + 10 * row)
            if role == "captioner":
                made.append(CaptionRequest(f"row-{row}", pictures(row), pairs, ids))
            else:
                text = f"a small hat on {row} red boats"
                made.append(ImageRequest(f"row-{row}", text, pairs, ids))
        return made

    return make
