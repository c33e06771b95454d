"""SDXL: what grounds an image, its prompt, its size, and what is not finite."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from generators.base import Dropped, Example, ImageRequest
from generators.grounding import NO_ROOM
from generators.sdxl_settings import SdxlSettings
from tests.generators.sdxl_requests import TEXTS, alike, generator, pixels, requests_for


def test_the_adapter_leaves_no_trace_in_a_row_without_an_example(
    sdxl: Path, ip_adapter: Path, examples: Callable[..., Any]
) -> None:
    requests = requests_for(examples, (1, 0, 2))
    plain = generator(sdxl).generate(requests)
    adapted = generator(sdxl, ip_adapter, grounding="ip_adapter").generate(requests)
    assert adapted[1].candidates[0].notes == ("no example: drawn from the text alone",)
    assert alike(adapted[1].candidates[0], plain[1].candidates[0].image)
    assert not alike(adapted[0].candidates[0], plain[0].candidates[0].image)
    assert not alike(adapted[2].candidates[0], plain[2].candidates[0].image)


def test_img2img_draws_a_row_without_an_example_from_its_text(
    sdxl: Path, examples: Callable[..., Any]
) -> None:
    requests = requests_for(examples, (1, 0, 1))
    plain = generator(sdxl).generate(requests)
    redrawn = generator(sdxl, grounding="img2img").generate(requests)
    assert redrawn[1].candidates[0].notes == ("no example: drawn from the text alone",)
    assert alike(redrawn[1].candidates[0], plain[1].candidates[0].image)
    assert redrawn[0].candidates[0].notes == ()


@pytest.mark.parametrize("grounding", ["img2img", "ip_adapter"])
def test_each_row_of_a_batch_is_grounded_by_its_own_example(
    grounding: str, sdxl: Path, ip_adapter: Path, examples: Callable[..., Any]
) -> None:
    made = generator(sdxl, ip_adapter, grounding=grounding, batch_size=8)
    requests = requests_for(examples, (1, 1, 1))
    before = made.generate(requests)
    other = ImageRequest("row-1", TEXTS[1], examples(1, 500), requests[1].seeds)
    after = made.generate([requests[0], other, requests[2]])
    changed = [
        not alike(old.candidates[0], new.candidates[0].image)
        for old, new in zip(before, after, strict=True)
    ]
    assert changed == [False, True, False]


def test_the_examples_caption_grounds_the_prompt(sdxl: Path, examples: Callable[..., Any]) -> None:
    (request,) = requests_for(examples, (1,))
    (answer,) = generator(sdxl, grounding="prompt").generate([request])
    assert answer.candidates[0].prompt == f"a red hat, similar to: {request.examples[0].text}"


def test_a_text_is_encoded_once_for_all_its_images_and_so_is_its_example(
    sdxl: Path, examples: Callable[..., Any]
) -> None:
    made = generator(sdxl, grounding="img2img", batch_size=3)
    made.load()
    texts: list[int] = []
    images: list[int] = []
    made._pipe.text_encoder_2.register_forward_hook(
        lambda module, inputs, output: texts.append(output.text_embeds.shape[0])
    )
    made._pipe.vae.encoder.register_forward_hook(
        lambda module, inputs, output: images.append(output.shape[0])
    )
    made.generate(
        [
            ImageRequest(f"row-{row}", TEXTS[row], examples(1, 100 + row), (1, 2, 3, 4, 5))
            for row in range(3)
        ]
    )
    assert sum(texts) == 3
    assert sum(images) == 3


def test_prompts_past_77_tokens_lose_the_example_first_and_say_so(
    sdxl: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = generator(sdxl, grounding="prompt", steps=1)
    own = "a red hat on a small green boat"
    long = Example("p", "blue moon " * 60)
    with caplog.at_level(logging.WARNING):
        answers = made.generate(
            [
                ImageRequest("row-0", own, (long,), (1,)),
                ImageRequest("row-1", "blue moon " * 60, (long,), (1,)),
            ]
        )
    first, second = (answer.candidates[0] for answer in answers)
    assert first.prompt.startswith(f"{own}, similar to: blue moon")
    assert first.notes[0].startswith("example cut to ")
    assert second.notes[0] == "text cut to 75 tokens"
    assert (first.shown, second.shown) == (("p",), ())
    assert second.dropped == (Dropped("p", NO_ROOM),)
    assert not any("truncated" in record.message for record in caplog.records)


@pytest.mark.parametrize(("steps", "strength"), [(1, 0.75), (10, 0.05), (3, 0.3)])
def test_less_than_one_step_is_refused_in_the_settings(steps: int, strength: float) -> None:
    with pytest.raises(ValueError, match="steps x strength must be at least 1"):
        SdxlSettings(grounding="img2img", steps=steps, strength=strength)
    SdxlSettings(grounding="none", steps=steps, strength=strength)


def test_an_adapter_that_leaves_no_trace_of_the_example_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        SdxlSettings(grounding="ip_adapter", ip_adapter={"scale": 0})  # type: ignore[arg-type]


def test_auto_draws_the_size_that_the_model_learned_on(
    sdxl: Path, examples: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (answer,) = generator(sdxl, steps=1).generate(requests_for(examples, (0,)))
    assert pixels(answer.candidates[0].image).shape == (64, 64, 3)
    assert not [record for record in caplog.records if record.name.startswith("generators")]


def test_a_size_that_the_model_did_not_learn_on_is_warned_of(
    sdxl: Path, examples: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (answer,) = generator(sdxl, steps=2, size=(128, 32), grounding="img2img").generate(
            requests_for(examples, (1,))
        )
        generator(sdxl, size=128).load()
    assert pixels(answer.candidates[0].image).shape == (32, 128, 3)
    warned = [record for record in caplog.records if "learned on" in record.message]
    assert len(warned) == 1


def test_a_size_between_two_latents_is_refused_with_the_nearest(sdxl: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 8 pixels; got 60 x 60, the nearest is 64"):
        generator(sdxl, size=60).load()


def test_output_size_resizes_what_was_drawn_in_its_shape(
    sdxl: Path, examples: Callable[..., Any]
) -> None:
    request = requests_for(examples, (0,))
    (drawn,) = generator(sdxl, steps=1, size=(64, 64)).generate(request)
    (resized,) = generator(sdxl, steps=1, output_size=(20, 20)).generate(request)
    image = drawn.candidates[0].image
    assert image is not None
    assert alike(resized.candidates[0], image.resize((20, 20), Image.Resampling.LANCZOS))


def test_guidance_can_be_off_and_a_negative_prompt_counts(
    sdxl: Path, ip_adapter: Path, examples: Callable[..., Any]
) -> None:
    request = requests_for(examples, (1,))
    drawn = [
        generator(sdxl, ip_adapter, grounding=grounding, **settings).generate(request)[0]
        for grounding in ("none", "ip_adapter")
        for settings in ({}, {"guidance_scale": 1.0}, {"negative_prompt": "a green tree"})
    ]
    images = {pixels(answer.candidates[0].image).tobytes() for answer in drawn}
    assert len(images) == 6


def test_values_that_are_not_finite_are_told_of_and_leave_the_others_alone(
    sdxl: Path, examples: Callable[..., Any]
) -> None:
    made = generator(sdxl)
    made.load()
    requests = requests_for(examples, (0, 0, 0))
    expected = made.generate(requests)

    def spoil(module: Any, inputs: Any, output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        noise = output[0].clone()
        noise[len(noise) // 2 :][1] = torch.nan
        return (noise,)

    handle = made._pipe.unet.register_forward_hook(spoil)
    answers = made.generate(requests)
    handle.remove()
    spoilt = answers[0].candidates[1]
    assert spoilt.image is None
    assert spoilt.notes[-1].startswith("nan: ")
    assert alike(answers[0].candidates[0], expected[0].candidates[0].image)
    assert alike(answers[2].candidates[1], expected[2].candidates[1].image)


def test_models_and_identity_name_the_adapter_only_where_it_is_used() -> None:
    plain = SdxlSettings(grounding="none")
    adapted = SdxlSettings(grounding="ip_adapter")
    assert set(plain.models()) == {"model"}
    assert adapted.models()["ip_adapter"] == ("h94/IP-Adapter", None)
    assert "ip_adapter" not in plain.identity()
    assert "strength" not in plain.identity()
    assert adapted.identity()["ip_adapter"]["scale"] == 0.6
