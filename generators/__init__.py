"""Captioners and image generators: what fills the missing half of a row.

Imports nothing of ``kb``, ``selection``, ``pipeline`` or ``flows``. The registries map a ``kind`` to
the class behind it as ``"package.module:ClassName"``, so that naming a kind imports no model library.
"""

from __future__ import annotations

CAPTIONERS: dict[str, str] = {
    "blip2": "generators.blip2:Blip2Captioner",
    "vlm": "generators.vlm:VlmCaptioner",
    "openai": "generators.openai_captions:OpenAICaptioner",
    "nearest": "generators.nearest:NearestCaptioner",
}

IMAGE_GENERATORS: dict[str, str] = {
    "sdxl": "generators.sdxl:SdxlImageGenerator",
    "diffusers": "generators.diffusion:DiffusersImageGenerator",
    "openai": "generators.openai_images:OpenAIImageGenerator",
    "nearest": "generators.nearest:NearestImageGenerator",
}
