from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from selection.validity import caption_fault, duplicates, image_fault

PROMPT = "Please write two captions of the image. Caption 1: a red hat on a table Caption 2:"


@pytest.mark.parametrize("text", ["", "   \n", "...", '"!?"'])
def test_a_caption_without_content_is_empty(text):
    assert caption_fault(text, PROMPT) == "empty"


@pytest.mark.parametrize(
    "text",
    [
        "Please write two captions of the image.",
        "please write two captions of a dog",
        "Please write",
        "Caption 2: a dog",
        "a dog Caption 3: a cat",
        PROMPT,
    ],
)
def test_a_caption_that_repeats_its_prompt_is_an_echo(text):
    assert caption_fault(text, PROMPT) == "echo"


@pytest.mark.parametrize(
    "text", ["a red hat on a table", "a caption written on an image", "two dogs", "please"]
)
def test_a_caption_that_shares_words_with_its_prompt_is_none(text):
    assert caption_fault(text, PROMPT) is None


def test_the_question_at_the_end_of_a_conversation_is_an_echo_and_examples_of_it_are_none():
    asked = "Please write a caption of the image."
    prompt = f"Be short.\n{asked}\na photo of a red hat\n{asked}"
    assert caption_fault(f"{asked} A hat.", prompt) == "echo"
    assert caption_fault("a photo of a red boat", prompt) is None


def test_an_example_repeated_is_no_echo_even_where_the_prompt_begins_with_it():
    prompt = "a red hat on a table. Write another:"
    assert caption_fault("a red hat on a table", prompt) == "echo"
    assert caption_fault("A red hat on a table.", prompt, ["a red hat on a table"]) is None


@pytest.mark.parametrize(
    "text",
    [
        "a hat on top of a hat on top of",
        "a hat on top of a hat on top of a hat on top of a hat",
        "there is a dog dog dog dog in the park",
        "a dog, a dog, a dog, and more",
        "一只狗和一只猫一只狗和一只猫",
        "the man in the red shirt and the man in the red shirt and the man",
    ],
)
def test_a_phrase_repeated_in_a_row_is_a_loop(text):
    assert caption_fault(text) == "loop"


@pytest.mark.parametrize(
    "text",
    [
        "New York, New York",
        "no, no, no",
        "a man and a woman and a dog",
        "a big big tree beside a small small house",
        "a cat on a mat and a dog on a mat",
        "knock knock",
        "一只狗在草地上跑",
        "🐶",
    ],
)
def test_ordinary_captions_have_no_fault(text):
    assert caption_fault(text, PROMPT) is None


def test_pictures_that_failed_are_named():
    nan = np.full((8, 8, 3), 0.5)
    nan[3, 4, 1] = np.nan
    assert image_fault(nan) == "nan"
    assert image_fault(Image.new("RGB", (64, 64))) == "black"
    assert image_fault(Image.new("RGB", (64, 64), (3, 2, 0))) == "black"
    assert image_fault(Image.new("RGB", (64, 64), (90, 40, 200))) == "blank"
    assert image_fault(Image.new("RGBA", (64, 64), (90, 40, 200, 0))) == "blank"
    assert image_fault(np.ones((8, 8, 3))) == "blank"
    assert image_fault(None) == "empty"


def test_a_fault_is_the_same_for_a_picture_and_for_its_array(photographs):
    generator = np.random.default_rng(0)
    for level in (0.0, 0.5, 0.9, 1.1, 3.0):
        pixels = np.clip(generator.normal(60, level, (64, 64, 3)), 0, 255).round().astype(np.uint8)
        expected = "blank" if pixels.std(axis=(0, 1)).max() < 1 else None
        forms = (Image.fromarray(pixels), pixels, pixels / 255.0)
        assert [image_fault(form) for form in forms] == [expected] * 3


def test_photographs_and_sparse_drawings_have_no_fault(photographs):
    assert [image_fault(photo) for photo in photographs] == [None, None]
    drawing = Image.new("RGB", (64, 64), "white")
    drawing.paste("black", (30, 30, 34, 34))
    assert image_fault(drawing) is None
    assert image_fault(drawing.convert("L")) is None
    assert image_fault(np.asarray(drawing) / 255.0) is None


def test_a_picture_without_pixels_or_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="must have pixels"):
        image_fault(np.zeros((0, 4, 3)))
    with pytest.raises(ValueError, match="must have pixels"):
        image_fault(Image.new("RGB", (0, 4)))
    with pytest.raises(ValueError, match="got shape"):
        image_fault(np.zeros((2, 2, 3, 1)))


def test_repeated_candidates_point_to_their_first():
    assert duplicates(["A red hat.", "a dog", "a  red hat", "a dog"]) == [None, None, 0, 1]
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    assert duplicates([red, blue, red.copy(), np.asarray(red)]) == [None, None, 0, None]
