"""Generators over the tiny SDXL and other pipelines, what they are asked, and when two images are alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from generators.base import Candidate, ImageRequest
from generators.diffusion import DiffusersImageGenerator, DiffusersSettings
from generators.sdxl import SdxlImageGenerator
from generators.sdxl_settings import SdxlSettings

TEXTS = ("a red hat", "two small cats on a boat", "the sun")


def generator(sdxl: Path, adapter: Path | None = None, **settings: Any) -> SdxlImageGenerator:
    values = {"model": "tiny", "steps": 4, "grounding": "none"} | settings
    paths = {"model": sdxl} | ({"ip_adapter": adapter} if adapter else {})
    return SdxlImageGenerator(SdxlSettings.model_validate(values), paths)


def any_pipeline(folder: Path, more: dict[str, Path] | None = None, **values: Any) -> Any:
    settings = {"model": "tiny", "grounding": "none", "steps": 2, "size": 64} | values
    paths = {"model": folder, **(more or {})}
    return DiffusersImageGenerator(DiffusersSettings.model_validate(settings), paths)


def requests_for(examples: Callable[..., Any], counts: tuple[int, ...]) -> list[ImageRequest]:
    return [
        ImageRequest(f"row-{row}", TEXTS[row], examples(count, 100 + 10 * row), (row, row + 10))
        for row, count in enumerate(counts)
    ]


def pixels(image: Image.Image | None) -> np.ndarray:
    assert image is not None
    return np.asarray(image, dtype=int)


def alike(one: Candidate, other: Image.Image | None) -> bool:
    return bool(np.allclose(pixels(one.image), pixels(other), atol=2))
