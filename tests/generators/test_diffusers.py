"""Any pipeline of diffusers: families, prompts, references, and what a checker declines."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generators.base import Example, ImageRequest
from generators.pictures import covering
from tests.generators.sdxl_requests import (
    TEXTS,
    alike,
    any_pipeline,
    generator,
    pixels,
    requests_for,
)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("family", ["stable_diffusion", "stable_diffusion_3"])
@pytest.mark.parametrize("grounding", ["none", "img2img"])
def test_a_batch_draws_what_the_familys_own_pipeline_draws_row_by_row(
    family: str, grounding: str, request: Any, examples: Callable[..., Any]
) -> None:
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image

    folder = request.getfixturevalue(family)
    rows = requests_for(examples, (1, 1, 1))
    answers = any_pipeline(folder, grounding=grounding, steps=4, batch_size=4).generate(rows)
    auto = AutoPipelineForText2Image if grounding == "none" else AutoPipelineForImage2Image
    pipe = auto.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    for row, answer in enumerate(answers):
        start = covering(rows[row].examples[0].image, (64, 64))
        given = {} if grounding == "none" else {"image": [start] * 2, "strength": 0.75}
        expected = pipe(
            prompt=[TEXTS[row]] * 2, generator=seeded(row, row + 10), num_inference_steps=4, **given
        ).images
        assert all(alike(*pair) for pair in zip(answer.candidates, expected, strict=True))


def test_a_reference_is_what_the_edit_model_refers_to(
    kontext: Path, examples: Callable[..., Any]
) -> None:
    from diffusers import FluxKontextPipeline

    plain = {"grounding": "reference", "arguments": {"_auto_resize": False}}
    rows = requests_for(examples, (1, 0))
    answers = any_pipeline(kontext, **plain).generate(rows)
    pipe = FluxKontextPipeline.from_pretrained(kontext)
    pipe.set_progress_bar_config(disable=True)
    called = {"num_inference_steps": 2, "height": 64, "width": 64, "max_area": 64 * 64}
    for row, answer in zip(rows, answers, strict=True):
        image = row.examples[0].image if row.examples else None
        for seed, candidate in zip(row.seeds, answer.candidates, strict=True):
            (expected,) = pipe(
                prompt=row.text,
                image=image,
                generator=torch.Generator().manual_seed(seed),
                _auto_resize=False,
                **called,
            ).images
            assert alike(candidate, expected)
    assert answers[0].candidates[0].shown == (rows[0].examples[0].id,)
    assert answers[1].candidates[0].notes == ("no example: drawn from the text alone",)


def test_a_prompt_is_as_long_as_the_encoder_that_reads_most_of_it(
    stable_diffusion: Path, stable_diffusion_3: Path
) -> None:
    text = "blue moon " * 60
    lengths = []
    for folder in (stable_diffusion, stable_diffusion_3):
        (answer,) = any_pipeline(folder, steps=1).generate([ImageRequest("row", text, (), (1,))])
        lengths.append(len(answer.candidates[0].prompt))
    assert lengths[0] < 400 < lengths[1]


def test_a_control_token_in_a_caption_is_text_to_the_model_and_in_the_record(
    stable_diffusion: Path,
) -> None:
    asked = any_pipeline(stable_diffusion, steps=1)
    asked.load()
    read: list[list[int]] = []
    asked._pipe.text_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(
            (args[0] if args else kwargs["input_ids"])[0].tolist()
        ),
        with_kwargs=True,
    )
    (answer,) = asked.generate([ImageRequest("row", "a hat <|endoftext|> a cat", (), (1,))])
    prompt = answer.candidates[0].prompt
    assert prompt == "a hat < |endoftext|> a cat"
    tokenizer = asked._pipe.tokenizer
    assert read[0][: len(tokenizer(prompt)["input_ids"])] == tokenizer(prompt)["input_ids"]
    plainly = tokenizer(prompt, split_special_tokens=True)["input_ids"]
    assert tokenizer(prompt)["input_ids"] == plainly


def test_sdxls_kind_refuses_another_family_and_both_kinds_draw_the_same_sdxl(
    sdxl: Path, stable_diffusion: Path, examples: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match="set kind to diffusers"):
        generator(stable_diffusion).load()
    rows = requests_for(examples, (1, 0))
    for grounding in ("none", "img2img"):
        own = generator(sdxl, grounding=grounding, batch_size=4).generate(rows)
        any_kind = any_pipeline(sdxl, grounding=grounding, steps=4, guidance_scale=6.0).generate(
            rows
        )
        for one, other in zip(own, any_kind, strict=True):
            assert (
                np.abs(pixels(one.candidates[0].image) - pixels(other.candidates[0].image)).max()
                < 3
            )


def test_what_a_safety_checker_declines_is_told_of(
    stable_diffusion: Path, examples: Callable[..., Any]
) -> None:
    asked = any_pipeline(stable_diffusion)
    asked.load()
    asked._pipe.run_safety_checker = lambda image, *rest: (
        image,
        [True] + [False] * (len(image) - 1),
    )
    (answer,) = asked.generate(requests_for(examples, (0,)))
    first, second = answer.candidates
    assert first.image is None and first.notes[-1].startswith("refused: ")
    assert isinstance(second.image, Image.Image)


def test_examples_may_be_several_where_a_pipeline_refers_to_several(
    kontext: Path, monkeypatch: pytest.MonkeyPatch, pictures: Callable[..., Image.Image]
) -> None:
    """As Qwen-Image-Edit-Plus and FLUX.2 do, which take a list of pictures for one image."""
    monkeypatch.setattr("generators.diffusion.SEVERAL_REFERENCES", {"FluxKontextPipeline"})
    asked = any_pipeline(kontext, grounding="reference", arguments={"_auto_resize": False})
    asked.load()
    given: list[Any] = []
    call = type(asked._pipe).__call__

    @functools.wraps(call)
    def watched(self: Any, *args: Any, image: Any, **named: Any) -> Any:
        given.append(image)
        return call(self, *args, image=image[0], **named)

    monkeypatch.setattr(type(asked._pipe), "__call__", watched)
    pairs = tuple(Example(f"p{n}", "a hat", pictures(n, (64, 64))) for n in range(2))
    (answer,) = asked.generate([ImageRequest("row", "a red hat", pairs, (1,))])
    assert answer.candidates[0].shown == ("p0", "p1")
    assert len(given[0]) == 2
