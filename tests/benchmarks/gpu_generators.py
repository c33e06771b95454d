"""What the parts of `tests.benchmarks.gpu` that generate do: ours beside bare loops, at full size."""

from __future__ import annotations

from typing import Any

from tests.benchmarks import full_size
from tests.benchmarks.gpu_timing import Figures, forget_peak, peak, seconds


def captions(device: str, small: bool) -> Figures:
    """BLIP-2 OPT-2.7B: captions a second, ours and a bare loop's, in batches of 16."""
    import torch

    from generators.base import CaptionRequest, Example
    from generators.blip2 import Blip2Captioner, Blip2Settings
    from tests.benchmarks.generators_speed import pictures

    rows, each, tokens = (2, 2, 4) if small else (8, 4, 40)
    dtype = torch.float32 if device == "cpu" else torch.float16
    model, processor = full_size.blip2(device, dtype, small)
    settings = Blip2Settings(model="built", max_new_tokens=tokens, batch_size=rows * each // 2)
    ours = Blip2Captioner(settings, {})
    ours._model, ours._processor, ours._dtype = model, processor, str(dtype)
    ours._prepare()
    model.language_model.generation_config.eos_token_id = None
    yield "weights", ours.memory() / 1e9, "GB"
    images, pair = pictures(rows, 480), Example("pair", "a red hat on a tree")
    requests = [
        CaptionRequest(f"row-{n}", image, (pair,), tuple(range(each)))
        for n, image in enumerate(images)
    ]
    processor.tokenizer.padding_side = "left"
    prompt = ours.prompt([pair]).text

    def bare() -> None:
        for start in range(0, rows, rows // 2):
            part = images[start : start + rows // 2]
            inputs = processor(
                images=part, text=[prompt] * len(part), padding=True, return_tensors="pt"
            )
            model.generate(
                **inputs.to(device, dtype),
                do_sample=True,
                top_p=0.9,
                top_k=0,
                num_return_sequences=each,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
            )

    with torch.inference_mode():
        yield "bare loop", rows * each / seconds(bare), "captions/s"
    yield "blip2", rows * each / seconds(lambda: _drawn(ours, *requests)), "captions/s"


def images(device: str, small: bool) -> Figures:
    """SDXL at 1024 pixels: images a minute, ours and a bare loop's, and in halves of a batch."""
    import torch
    from diffusers import AutoPipelineForImage2Image

    from generators.base import Example, ImageRequest
    from generators.sdxl import SdxlImageGenerator
    from generators.sdxl_settings import SdxlSettings
    from tests.benchmarks.generators_speed import pictures

    count, steps, side = (2, 2, 64) if small else (4, 30, 1024)
    dtype = torch.float32 if device == "cpu" else torch.float16
    pipe = full_size.sdxl(device, dtype, small)

    class Built(SdxlImageGenerator):
        def _read(self, dtype: Any) -> tuple[Any, Any]:
            with_picture = AutoPipelineForImage2Image.from_pipe(pipe)
            with_picture.set_progress_bar_config(disable=True)
            return pipe, with_picture

    values = {"model": "built", "steps": steps, "batch_size": count, "device": device, "size": side}

    def made(**others: Any) -> SdxlImageGenerator:
        generator = Built(SdxlSettings.model_validate(values | others), {})
        generator.load()
        return generator

    ours, grounded = made(grounding="none"), made(grounding="img2img")
    yield "weights", ours.memory() / 1e9, "GB"
    text, seeds = "a red hat on a tree", tuple(range(count))
    request = ImageRequest("row", text, (), seeds)
    example = Example("pair", "a blue boat", pictures(1, 640)[0])
    with_example = ImageRequest("row", text, (example,), seeds)

    def bare() -> None:
        pipe(
            prompt=[text] * count,
            generator=[torch.Generator("cpu").manual_seed(n) for n in range(count)],
            num_inference_steps=steps,
            guidance_scale=ours.settings.guidance_scale,
            height=side,
            width=side,
        )

    with torch.inference_mode():
        yield "bare loop", 60 * count / seconds(bare), "images/min"
    forget_peak()
    yield "sdxl", 60 * count / seconds(lambda: _drawn(ours, request)), "images/min"
    yield "sdxl, most memory", peak() / 1e9, "GB"
    strength = grounded.settings.strength
    name = f"sdxl from an example's picture at {strength:g}"
    yield name, 60 * count / seconds(lambda: _drawn(grounded, with_example)), "images/min"


def _drawn(generator: Any, *requests: Any) -> None:
    """Generate, and raise where a row failed: an error's time is no generator's."""
    for answer in generator.generate(requests):
        if answer.error is not None:
            raise ValueError(answer.error)
