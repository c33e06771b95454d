"""The kinds of generators that the contract tests ask, each with its variants."""

from __future__ import annotations

import importlib
from typing import Any

CAPTIONER_CASES = ("blip2-opt", "blip2-t5", "vlm-llava", "vlm-qwen2_vl", "openai", "nearest")
IMAGE_CASES = (
    "sdxl-none",
    "sdxl-prompt",
    "sdxl-img2img",
    "sdxl-ip_adapter",
    "diffusers-stable_diffusion/prompt",
    "diffusers-stable_diffusion/img2img",
    "diffusers-stable_diffusion_3/none",
    "diffusers-stable_diffusion_3/img2img",
    "diffusers-sdxl/img2img",
    "diffusers-kontext/reference",
    "openai",
    "nearest",
)
CASES = [("captioner", case) for case in CAPTIONER_CASES] + [
    ("image", case) for case in IMAGE_CASES
]


def class_of(kind: str, registry: dict[str, str]) -> Any:
    module, name = registry[kind].split(":")
    return getattr(importlib.import_module(module), name)
