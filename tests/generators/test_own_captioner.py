"""The worked example of a captioner of one's own."""

from __future__ import annotations

import importlib
from collections import Counter
from typing import Any

import pytest
from PIL import Image

from generators.base import CaptionRequest, Example

ADDRESS = "examples.own_captioner:AgreementCaptioner"


def own(**settings: Any) -> Any:
    module, name = ADDRESS.split(":")
    cls = getattr(importlib.import_module(module), name)
    return cls(cls.Settings(kind=ADDRESS, **settings), {})


def request(*seeds: int, captions: tuple[str, ...]) -> CaptionRequest:
    examples = tuple(Example(f"pair-{n}", text) for n, text in enumerate(captions))
    return CaptionRequest("row", Image.new("RGB", (8, 8)), examples, seeds)


CAPTIONS = ("a red hat", "a small red hat", "two cats on a boat")


def test_it_keeps_the_contract_of_the_others() -> None:
    first, second = (own().generate([request(3, 1, 2, captions=CAPTIONS)])[0] for _ in range(2))
    assert first == second
    assert [one.seed for one in first.candidates] == [3, 1, 2]
    assert own().generate([]) == []
    assert own().generate([request(1, captions=())])[0].error is not None


def test_captions_that_agree_are_drawn_more_often() -> None:
    (answer,) = own().generate([request(*range(300), captions=CAPTIONS)])
    drawn = Counter(one.text for one in answer.candidates)
    assert drawn["a red hat"] > 2 * drawn["two cats on a boat"]
    (even,) = own(sharpness=0).generate([request(*range(300), captions=CAPTIONS)])
    assert min(Counter(one.text for one in even.candidates).values()) > 60


def test_a_setting_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        own(colour="red")


def test_the_config_finds_it_by_its_address() -> None:
    from generators import CAPTIONERS
    from pipeline.models.components import Component

    part = Component.choose("captioner", {"kind": ADDRESS, "sharpness": 2}, CAPTIONERS)
    assert part.kind == ADDRESS
    assert part.create({}).settings.sharpness == 2
