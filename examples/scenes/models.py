"""Read the checkpoints and use them as they are, without the pipeline, to measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


class Encoder:
    """An open_clip checkpoint folder, on pictures and strings."""

    def __init__(self, folder: Path) -> None:
        import open_clip

        self.preprocess: Any
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(
            f"local-dir:{folder}", precision="fp32"
        )
        self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.model.eval()

    def images(self, pictures: list[Image.Image]) -> np.ndarray:
        """Embed pictures into unit rows (n, d)."""
        import torch

        rows = []
        with torch.no_grad():
            for start in range(0, len(pictures), 64):
                part = [self.preprocess(p) for p in pictures[start : start + 64]]
                rows.append(self.model.encode_image(torch.stack(part), normalize=True).numpy())
        return np.concatenate(rows)

    def texts(self, texts: list[str]) -> np.ndarray:
        """Embed strings into unit rows (n, d)."""
        import torch

        with torch.no_grad():
            rows: np.ndarray = self.model.encode_text(self.tokenizer(texts), normalize=True).numpy()
        return rows


def greedy(folder: Path, pictures: list[Image.Image], prompts: list[str]) -> list[str]:
    """Caption pictures without sampling, sixteen at a time."""
    import torch
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    processor = Blip2Processor.from_pretrained(folder)
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    said = []
    for start in range(0, len(pictures), 16):
        inputs = processor(
            images=pictures[start : start + 16],
            text=prompts[start : start + 16],
            padding=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            ids = model.generate(**inputs, max_new_tokens=40, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        said += [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
    return said


def paint(
    folder: Path,
    texts: list[str],
    starts: list[Image.Image] | None,
    guidance: float,
    steps: int = 30,
    strength: float = 0.75,
    seed: int = 0,
) -> list[Image.Image]:
    """Draw pictures of texts, from noise or from start pictures."""
    import torch
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, add_watermarker=False
    )
    if starts is not None:
        pipeline = StableDiffusionXLImg2ImgPipeline.from_pipe(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    pictures: list[Image.Image] = []
    for start in range(0, len(texts), 50):
        part = texts[start : start + 50]
        how: dict[str, Any] = {"height": 64, "width": 64}
        if starts is not None:
            how = {"image": starts[start : start + 50], "strength": strength}
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        pictures += pipeline(
            prompt=part,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            **how,
        ).images
    return pictures
