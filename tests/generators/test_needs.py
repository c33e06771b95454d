"""What a candidate says it was shown, of every kind, and what is dropped on the way to the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generators.base import CaptionRequest, Example, ImageRequest, Needs, needs_of
from tests.generators.cases import CASES

# The most examples that each shows of three that have all it needs.
SHOWN = {
    "sdxl-none": 0,
    "sdxl-prompt": 1,
    "sdxl-img2img": 1,
    "diffusers-stable_diffusion/prompt": 1,
    "diffusers-stable_diffusion/img2img": 1,
    "diffusers-stable_diffusion_3/none": 0,
    "diffusers-stable_diffusion_3/img2img": 1,
    "diffusers-sdxl/img2img": 1,
    "diffusers-kontext/reference": 1,
    "openai-image": 1,
}


def request_of(role: str, picture: Image.Image, examples: tuple[Example, ...]) -> Any:
    seeds = (1, 2, 3)
    if role == "captioner":
        return CaptionRequest("row", picture, examples, seeds)
    return ImageRequest("row", "a red hat", examples, seeds)


def most(role: str, case: str) -> int:
    return SHOWN.get(f"{case}-image" if (role, case) == ("image", "openai") else case, 3)


@pytest.mark.parametrize(("role", "case"), CASES)
def test_candidates_tell_which_examples_they_were_shown_and_which_were_dropped(
    role: str, case: str, loaded: Any, examples: Any, pictures: Callable[..., Image.Image]
) -> None:
    pairs = examples(3)
    generator = loaded(role, case)
    (answer,) = generator.generate([request_of(role, pictures(0), pairs)])
    ids = tuple(pair.id for pair in pairs)
    for place, candidate in enumerate(answer.candidates):
        if case == "nearest":
            assert candidate.shown == (ids[place],)
            continue
        assert candidate.shown == ids[: most(role, case)]
        assert tuple(one.id for one in candidate.dropped) == ids[most(role, case) :]
        assert all(one.reason for one in candidate.dropped)


@pytest.mark.parametrize(("role", "case"), CASES)
def test_an_example_without_the_half_that_is_needed_is_dropped_and_the_next_one_serves(
    role: str, case: str, loaded: Any, examples: Any, pictures: Callable[..., Image.Image]
) -> None:
    generator = loaded(role, case)
    needs = needs_of(generator.settings)
    if not needs.any:
        return
    first, second = examples(2)
    bare = replace(first, image=None) if needs.image else replace(first, text=" ")
    (answer,) = generator.generate([request_of(role, pictures(0), (bare, second))])
    (alone,) = generator.generate([request_of(role, pictures(0), (second,))])
    for candidate, other in zip(answer.candidates, alone.candidates, strict=True):
        assert candidate.shown == (second.id,)
        assert [one.id for one in candidate.dropped] == [first.id]
        assert candidate.prompt == other.prompt
        assert candidate.text == other.text


@pytest.mark.parametrize(("role", "case"), CASES)
def test_a_half_that_is_not_needed_changes_nothing(
    role: str, case: str, loaded: Any, examples: Any, pictures: Callable[..., Image.Image]
) -> None:
    """So whoever asks may leave it out: pictures take time to fetch."""
    generator = loaded(role, case)
    needs = needs_of(generator.settings)
    pairs = examples(2)
    bare = tuple(
        Example(pair.id, pair.text if needs.text else "", pair.image if needs.image else None)
        for pair in pairs
    )
    (whole,) = generator.generate([request_of(role, pictures(0), pairs)])
    (halved,) = generator.generate([request_of(role, pictures(0), bare)])
    for one, other in zip(whole.candidates, halved.candidates, strict=True):
        assert (one.prompt, one.shown, one.text) == (other.prompt, other.shown, other.text)
        assert (one.image is None) == (other.image is None)
        assert one.image is None or one.image.tobytes() == other.image.tobytes()


@pytest.mark.parametrize(("role", "case"), CASES)
def test_only_what_needs_an_example_fails_without_one(
    role: str, case: str, loaded: Any, pictures: Callable[..., Image.Image]
) -> None:
    generator = loaded(role, case)
    (answer,) = generator.generate([request_of(role, pictures(0), ())])
    assert (answer.error is not None) == needs_of(generator.settings).example
    assert all(candidate.shown == () for candidate in answer.candidates)


def test_a_class_that_does_not_say_is_handed_both_halves() -> None:
    assert needs_of(object()) == Needs(text=True, image=True, example=False)


@pytest.mark.parametrize(
    "case", [case for role, case in CASES if role == "image" and case != "openai"]
)
def test_what_is_said_to_be_shown_changes_what_is_drawn(
    case: str, loaded: Callable[..., Any], examples: Any, pictures: Callable[..., Image.Image]
) -> None:
    generator = loaded("image", case)
    needs = needs_of(generator.settings)
    if not needs.any:
        return
    (pair,) = examples(1)
    other = replace(pair, **({"image": pictures(7)} if needs.image else {"text": "two cats"}))
    drawn = []
    for one in (pair, other):
        (answer,) = generator.generate([request_of("image", pictures(0), (one,))])
        assert answer.candidates[0].shown == (pair.id,)
        drawn.append(np.asarray(answer.candidates[0].image))
    assert drawn[0].shape == drawn[1].shape and not np.array_equal(*drawn)
