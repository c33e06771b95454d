"""SDXL in batches draws what diffusers' own pipelines draw row by row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from generators.pictures import covering
from tests.generators.sdxl_requests import TEXTS, alike, generator, requests_for


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def bare_pipeline(folder: Path) -> Any:
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_batch_draws_what_diffusers_draws_row_by_row(
    sdxl: Path, examples: Callable[..., Any]
) -> None:
    answers = generator(sdxl, batch_size=4).generate(requests_for(examples, (0, 0, 0)))
    pipe = bare_pipeline(sdxl)
    for row, answer in enumerate(answers):
        expected = pipe(
            prompt=[TEXTS[row]] * 2,
            generator=seeded(row, row + 10),
            num_inference_steps=4,
            guidance_scale=6.0,
        ).images
        assert all(alike(*pair) for pair in zip(answer.candidates, expected, strict=True))


def test_img2img_draws_what_diffusers_draws_row_by_row(
    sdxl: Path, examples: Callable[..., Any]
) -> None:
    from diffusers import StableDiffusionXLImg2ImgPipeline

    requests = requests_for(examples, (1, 2, 1))
    answers = generator(sdxl, grounding="img2img", strength=0.6, batch_size=4).generate(requests)
    pipe = StableDiffusionXLImg2ImgPipeline.from_pretrained(sdxl)
    pipe.set_progress_bar_config(disable=True)
    for row, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        expected = pipe(
            prompt=[TEXTS[row]] * 2,
            image=[covering(request.examples[0].image, (64, 64))] * 2,
            generator=seeded(row, row + 10),
            num_inference_steps=4,
            strength=0.6,
            guidance_scale=6.0,
        ).images
        assert all(alike(*pair) for pair in zip(answer.candidates, expected, strict=True))


@pytest.mark.parametrize("images", [1, 2])
def test_the_adapter_draws_what_diffusers_draws_row_by_row(
    images: int, sdxl: Path, ip_adapter: Path, examples: Callable[..., Any]
) -> None:
    """diffusers takes a nested list as several images of one prompt: rows are drawn one by one."""
    requests = requests_for(examples, (images,) * 3)
    answers = generator(sdxl, ip_adapter, grounding="ip_adapter", batch_size=6).generate(requests)
    pipe = bare_pipeline(sdxl)
    pipe.load_ip_adapter(
        str(ip_adapter),
        subfolder="sdxl_models",
        weight_name="ip-adapter_sdxl.safetensors",
        image_encoder_folder="image_encoder",
    )
    pipe.set_ip_adapter_scale(0.6)
    for row, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        for seed, candidate in zip(request.seeds, answer.candidates, strict=True):
            expected = pipe(
                prompt=TEXTS[row],
                ip_adapter_image=[[example.image for example in request.examples]],
                generator=torch.Generator().manual_seed(seed),
                num_inference_steps=4,
                guidance_scale=6.0,
            ).images[0]
            assert alike(candidate, expected)
