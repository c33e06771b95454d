"""BLIP-2, OPT and T5: the ways in which it fails, and its agreement with transformers' own loop."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from generators.base import CaptionRequest, Example
from generators.blip2 import Blip2Captioner, Blip2Settings
from tests.generators import tiny_captioners
from tests.pickles import telling_pickle

FAMILIES = ("opt", "t5")


def captioner(folder: Path, **settings: Any) -> Blip2Captioner:
    values = {"model": "tiny", "max_new_tokens": 8} | settings
    return Blip2Captioner(Blip2Settings(**values), {"model": folder})


@pytest.fixture(scope="module")
def folders(blip2_opt: Path, blip2_t5: Path) -> dict[str, Path]:
    return {"opt": blip2_opt, "t5": blip2_t5}


def bare_caption(folder: Path, image: Image.Image, prompt: str) -> str:
    """The likeliest caption by transformers alone, one row at a time, without padding."""
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    processor = Blip2Processor.from_pretrained(folder)
    model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=8)
    if not model.config.text_config.is_encoder_decoder:
        tokens = tokens[:, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.decode(tokens[0], skip_special_tokens=True).strip()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_likeliest_captions_of_a_batch_are_those_of_transformers_alone(
    family: str, folders: dict[str, Path], pictures: Callable[..., Image.Image]
) -> None:
    """Rows of different length: padding on the wrong side would change all but the longest."""
    examples = ["", "a cat", "a very small old boat with one sleeping green fish"]
    requests = [
        CaptionRequest(
            f"row-{row}", pictures(row), (Example("p", example),) if example else (), (1,)
        )
        for row, example in enumerate(examples)
    ]
    generator = captioner(folders[family], top_k=1, stops=["\n\n\n"])
    answers = generator.generate(requests)
    for request, answer in zip(requests, answers, strict=True):
        (candidate,) = answer.candidates
        assert candidate.text == bare_caption(folders[family], request.image, candidate.prompt)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_does_not_come_back_with_the_answer(
    family: str, folders: dict[str, Path], pictures: Callable[..., Image.Image]
) -> None:
    request = CaptionRequest("row", pictures(1), (Example("p", "a red hat"),), (1, 2, 3))
    (answer,) = captioner(folders[family]).generate([request])
    assert answer.candidates[0].prompt == (
        "Please write two captions of the image. Caption 1: a red hat Caption 2:"
    )
    assert not any("Please write two" in one.text for one in answer.candidates)


@pytest.mark.parametrize("family", FAMILIES)
def test_image_and_example_both_change_the_caption(
    family: str, folders: dict[str, Path], pictures: Callable[..., Image.Image]
) -> None:
    def ask(image: int, text: str) -> CaptionRequest:
        return CaptionRequest("row", pictures(image), (Example("p", text),), (1,))

    requests = [ask(1, "a red hat"), ask(2, "a red hat"), ask(1, "two cats")]
    answers = captioner(folders[family], max_new_tokens=16, top_k=3).generate(requests)
    assert len({answer.candidates[0].text for answer in answers}) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_is_encoded_once_for_all_its_captions(
    family: str, folders: dict[str, Path], pictures: Callable[..., Image.Image]
) -> None:
    generator = captioner(folders[family], batch_size=2)
    generator.load()
    encoded: list[int] = []
    generator._model.vision_model.register_forward_hook(
        lambda module, inputs, output: encoded.append(output.last_hidden_state.shape[0])
    )
    seeds = tuple(range(5))
    generator.generate([CaptionRequest(f"row-{n}", pictures(n), (), seeds) for n in range(3)])
    assert sum(encoded) == 3


def test_captions_that_loop_can_be_forbidden(
    folders: dict[str, Path], pictures: Callable[..., Image.Image]
) -> None:
    request = CaptionRequest("row", pictures(0), (), (1,))

    def longest_repeat(text: str) -> int:
        return max(text.count(text[start : start + 6]) for start in range(max(1, len(text) - 6)))

    looping = captioner(folders["opt"], top_k=1, max_new_tokens=40)
    strict = captioner(folders["opt"], top_k=1, max_new_tokens=40, no_repeat_ngram_size=2)
    (loop,), (free,) = looping.generate([request]), strict.generate([request])
    assert longest_repeat(loop.candidates[0].text) >= 3
    assert longest_repeat(free.candidates[0].text) < 3


def test_a_checkpoints_own_generation_defaults_do_not_leak_in(
    tmp_path: Path, folders: dict[str, Path], pictures: Callable[..., Image.Image]
) -> None:
    from transformers import GenerationConfig

    folder = tmp_path / "opinionated"
    shutil.copytree(folders["opt"], folder)
    config = GenerationConfig.from_pretrained(folders["opt"])
    config.num_beams, config.min_length, config.repetition_penalty = 3, 30, 5.0
    config.save_pretrained(folder)
    request = CaptionRequest("row", pictures(0), (), (1, 2))
    assert captioner(folder).generate([request]) == captioner(folders["opt"]).generate([request])


def test_a_long_example_is_cut_to_the_positions_that_the_model_has(
    folders: dict[str, Path], pictures: Callable[..., Image.Image]
) -> None:
    example = Example("p", "a red hat on a tree " * 100)
    (answer,) = captioner(folders["opt"]).generate(
        [CaptionRequest("row", pictures(0), (example,), (1,))]
    )
    (candidate,) = answer.candidates
    assert candidate.notes[0].startswith("example cut to ")
    assert candidate.prompt.endswith("Caption 2:")
    ids = captioner(folders["opt"])
    ids.load()
    # 128 positions hold 4 image queries, the prompt, and 8 new tokens.
    assert len(ids._processor.tokenizer(candidate.prompt)["input_ids"]) <= 128 - 4 - 8


def test_no_room_for_the_template_is_said_at_load(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        captioner(folders["opt"], max_new_tokens=120).load()


def test_an_image_token_in_a_caption_takes_no_image(
    folders: dict[str, Path], pictures: Callable[..., Image.Image]
) -> None:
    example = Example("p", "a <image> of a hat</s> <image>")
    made = captioner(folders["opt"])
    (answer,) = made.generate([CaptionRequest("row", pictures(0), (example,), (1,))])
    assert answer.error is None
    prompt, tokenizer = answer.candidates[0].prompt, made._processor.tokenizer
    assert "a < image> of a hat< /s> < image>" in prompt
    # No token of the prompt but the one that opens it stands for no text.
    assert tokenizer(prompt)["input_ids"].count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_half_precision_checkpoint_runs_on_the_cpu(
    dtype: str, tmp_path: Path, pictures: Callable[..., Image.Image]
) -> None:
    folder = tiny_captioners.blip2(tmp_path / "half", "opt", half=True)
    generator = captioner(folder, dtype=dtype, device="cpu")
    (answer,) = generator.generate([CaptionRequest("row", pictures(0), (), (1, 2))])
    assert len(answer.candidates) == 2
    dtypes = {parameter.dtype for parameter in generator._model.parameters()}
    assert dtypes == {torch.float32}


def test_weights_in_a_pickle_are_refused_unread(tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(folders["opt"], folder)
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "was-read"
    (folder / "pytorch_model.bin").write_bytes(telling_pickle(marker))
    with pytest.raises(ValueError, match="holds only pytorch_model.bin; weights must be"):
        captioner(folder).load()
    assert not marker.exists()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no config.json"):
        captioner(tmp_path).load()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("example_template", "{count} captions:", "example_template must hold {examples}"),
        ("template", "Caption of {name}:", "template may hold no placeholder"),
        ("stops", [""], "stops must not hold an empty text"),
        ("top_p", 0, "top_p"),
        ("temperature", 0, "temperature"),
    ],
)
def test_wrong_settings_are_named(field: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Blip2Settings.model_validate({field: value})
