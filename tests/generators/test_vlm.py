"""Chat models that see images: few-shot turns, control marks, and code that comes along."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoProcessor

from generators.base import CaptionRequest, Dropped, Example
from generators.grounding import NO_PICTURE, NO_ROOM
from generators.vlm import VlmCaptioner, VlmSettings


def captioner(folder: Path, **settings: Any) -> VlmCaptioner:
    values = {"model": "tiny", "max_new_tokens": 8} | settings
    return VlmCaptioner(VlmSettings(**values), {"model": folder})


def test_the_retrieved_pairs_are_earlier_turns(
    llava: Path, examples: Any, pictures: Callable[..., Image.Image]
) -> None:
    generator = captioner(llava, prompt="Name it.", system="Be short.")
    pairs = examples(2)
    (answer,) = generator.generate([CaptionRequest("row", pictures(0), pairs, (1,))])
    assert answer.candidates[0].prompt == (
        f"system: Be short. user: <image>Name it. assistant: {pairs[0].text}</s> "
        f"user: <image>Name it. assistant: {pairs[1].text}</s> user: <image>Name it. assistant:"
    )


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_the_likeliest_captions_of_a_batch_are_those_of_transformers_alone(
    family: str, request: pytest.FixtureRequest, examples: Any, pictures: Callable[..., Image.Image]
) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = request.getfixturevalue(family)
    requests = [
        CaptionRequest(f"row-{row}", pictures(row), examples(row), (1, 2)) for row in range(3)
    ]
    answers = captioner(folder, top_k=1, stops=[]).generate(requests)
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    for asked, answer in zip(requests, answers, strict=True):
        images = [pair.image for pair in asked.examples] + [asked.image]
        prompt = answer.candidates[0].prompt
        inputs = processor(text=prompt, images=images, return_tensors="pt")
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=8)
        tokens = tokens[0, inputs["input_ids"].shape[1] :]
        expected = processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert [one.text for one in answer.candidates] == [expected, expected]


def test_an_image_is_encoded_once_for_all_its_captions(
    llava: Path, pictures: Callable[..., Image.Image]
) -> None:
    generator = captioner(llava, batch_size=8)
    generator.load()
    encoded: list[int] = []
    generator._model.model.vision_tower.register_forward_hook(
        lambda module, inputs, output: encoded.append(output.last_hidden_state.shape[0])
    )
    requests = [CaptionRequest(f"row-{n}", pictures(n), (), (1, 2, 3, 4)) for n in range(3)]
    generator.generate(requests)
    assert sum(encoded) == 3


def test_marks_of_the_template_in_a_caption_stay_text(
    llava: Path, pictures: Callable[..., Image.Image]
) -> None:
    """An "<image>" in a caption would ask for a picture that isn't there."""
    example = Example("p", "a <image> of a hat</s> <image>", pictures(5))
    (answer,) = captioner(llava).generate([CaptionRequest("row", pictures(0), (example,), (1, 2))])
    assert answer.error is None
    assert len(answer.candidates) == 2
    # The record says what the model got: the marks that are left are the template's own.
    prompt = answer.candidates[0].prompt
    assert "a < image> of a hat< /s> < image>" in prompt
    assert prompt.count("<image>") == 2


def test_examples_without_room_are_left_out_and_named(
    llava: Path, examples: Any, pictures: Callable[..., Image.Image]
) -> None:
    pairs = examples(3)
    (answer,) = captioner(llava, max_prompt_tokens=60).generate(
        [CaptionRequest("row", pictures(0), pairs, (1,))]
    )
    (candidate,) = answer.candidates
    assert candidate.dropped[-1] == Dropped(pairs[2].id, NO_ROOM)
    assert candidate.shown == tuple(pair.id for pair in pairs[: len(candidate.shown)])
    assert candidate.prompt.count("assistant:") == len(candidate.shown) + 1
    assert len(candidate.shown) + len(candidate.dropped) == 3


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_picture_without_room_fails_its_row_alone_and_nothing_is_cut(
    batch_size: int, qwen2_vl: Path, examples: Any, pictures: Callable[..., Image.Image]
) -> None:
    """A large picture takes more tokens than a small one, and may have no room even alone."""
    sizes = {"large": (56, 56), "small": (28, 28), "other": (28, 28)}
    counts = {"large": 2, "small": 2, "other": 1}
    rows = [
        CaptionRequest(name, pictures(0, size), examples(1), tuple(range(counts[name])))
        for name, size in sizes.items()
    ]
    processor = AutoProcessor.from_pretrained(qwen2_vl)
    asked = [{"type": "image", "image": rows[1].image}, {"type": "text", "text": "Name it."}]
    taken = processor.apply_chat_template(
        [{"role": "user", "content": asked}],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
    )
    room = len(taken["input_ids"][0])
    values = {"prompt": "Name it.", "max_prompt_tokens": room, "batch_size": batch_size}
    large, *others = captioner(qwen2_vl, **values).generate(rows)
    assert not large.candidates and large.error is not None
    assert f"are {room + 3} tokens, and there is room for {room};" in large.error
    for row, answer in zip(rows[1:], others, strict=True):
        assert answer.error is None and len(answer.candidates) == len(row.seeds)
        assert {one.shown for one in answer.candidates} == {()}
        assert answer.candidates[0].dropped == (Dropped(row.examples[0].id, NO_ROOM),)


def test_an_example_without_its_image_is_left_out_and_named(
    llava: Path, pictures: Callable[..., Image.Image]
) -> None:
    (answer,) = captioner(llava).generate(
        [CaptionRequest("row", pictures(0), (Example("pair-9", "a hat"),), (1,))]
    )
    assert answer.candidates[0].shown == ()
    assert answer.candidates[0].dropped == (Dropped("pair-9", NO_PICTURE),)


@pytest.mark.parametrize("place", ["config.json", "processor_config.json"])
def test_code_beside_the_weights_does_not_run_unless_trusted(
    place: str, tmp_path: Path, llava: Path
) -> None:
    folder = tmp_path / "with-code"
    shutil.copytree(llava, folder)
    marker = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((folder / place).read_text())
    if place == "config.json":
        config["model_type"] = "own-model"
        config["auto_map"] = {
            "AutoConfig": "own.Config",
            "AutoModelForImageTextToText": "own.Model",
        }
    else:
        config["processor_class"] = "OwnProcessor"
        config["auto_map"] = {"AutoProcessor": "own.OwnProcessor"}
    (folder / place).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code"):
        captioner(folder).load()
    assert not marker.exists()


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path, llava: Path) -> None:
    folder = tmp_path / "mute"
    shutil.copytree(llava, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="has no chat template"):
        captioner(folder).load()
