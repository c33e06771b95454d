"""Candidates that outlive a run: asked for once, and known by all that they depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generators.base import Candidate, CaptionRequest, Example, Generated, ImageRequest
from generators.nearest import NearestCaptioner, NearestCaptionSettings
from pipeline.models.candidates import CandidateStore
from tests.quick_parts import picture


class Counting:
    """Answers with what it was asked, and counts."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def close(self) -> None:
        pass

    def memory(self) -> int:
        return 7

    def generate(self, requests: Sequence[Any]) -> list[Generated]:
        answers = []
        for request in requests:
            self.asked += request.seeds
            if request.row_id == "broken":
                answers.append(Generated(request.row_id, error="out of memory"))
                continue
            painted = isinstance(request, ImageRequest)
            made = tuple(
                Candidate(
                    seed,
                    "prompt",
                    text=None if painted else f"text {seed}",
                    image=picture("red", seed) if painted else None,
                    notes=("a note",),
                )
                for seed in request.seeds
            )
            answers.append(Generated(request.row_id, made))
        return answers


def caption(row_id: str, seeds: tuple[int, ...], colour: str = "red") -> CaptionRequest:
    example = Example("e", "a hat")
    return CaptionRequest(row_id, picture(colour, 1), (example,), seeds, numbers=seeds)


@pytest.fixture
def generator() -> Counting:
    return Counting()


def test_only_new_seeds_are_asked_for_and_order_stays(tmp_path: Path, generator: Counting) -> None:
    memory = CandidateStore(tmp_path / "m.sqlite").around(generator, {"model": 1})
    first = memory.generate([caption("a", (1, 2))])
    again = memory.generate([caption("a", (3, 2, 1)), caption("b", (1,), "blue")])
    assert generator.asked == [1, 2, 3, 1]
    assert [c.text for c in again[0].candidates] == ["text 3", "text 2", "text 1"]
    assert again[0].candidates[2] == first[0].candidates[0]
    fresh = Counting()
    held = (
        CandidateStore(tmp_path / "m.sqlite")
        .around(fresh, {"model": 1})
        .generate([caption("z", (2,))])
    )
    assert not fresh.asked and held[0].candidates[0].notes == ("a note",)


def test_pictures_come_back_pixel_by_pixel(tmp_path: Path, generator: Counting) -> None:
    memory = CandidateStore(tmp_path / "m.sqlite").around(generator, {})
    request = ImageRequest("a", "a red hat", (Example("e", "hat", picture("blue", 1)),), (5,))
    drawn, held = (memory.generate([request])[0].candidates[0].image for _ in range(2))
    assert drawn is not None and held is not None
    assert drawn.tobytes() == held.tobytes()
    other = ImageRequest("a", "a red hat", (Example("e", "hat", picture("blue", 2)),), (5,))
    memory.generate([other])
    assert generator.asked == [5, 5]


def test_another_model_is_asked_anew_and_errors_are_not_kept(
    tmp_path: Path, generator: Counting
) -> None:
    store = CandidateStore(tmp_path / "m.sqlite")
    for revision in (1, 2):
        store.around(generator, {"revision": revision}).generate([caption("a", (1,))])
    assert generator.asked == [1, 1] and len(store) == 2
    memory = store.around(generator, {})
    for _ in range(2):
        answers = memory.generate([caption("broken", (9,), "green"), caption("a", (1,))])
        assert answers[0].error == "out of memory" and answers[1].candidates[0].text == "text 1"
    assert generator.asked.count(9) == 2
    assert memory.memory() == 7


def test_a_row_may_be_asked_for_twice_with_other_examples(
    tmp_path: Path, generator: Counting
) -> None:
    memory = CandidateStore(tmp_path / "m.sqlite").around(generator, {})
    shown, alone = caption("a", (1,)), replace(caption("a", (2,)), examples=())
    for _ in range(2):
        answers = memory.generate([shown, alone])
        assert [[c.seed for c in answer.candidates] for answer in answers] == [[1], [2]]
    assert generator.asked == [1, 2]


def test_whose_answer_goes_by_a_candidates_number_is_asked_anew_for_another(tmp_path: Path) -> None:
    # A second look counts anew after however many the first may have.
    examples = tuple(Example(name, f"a {name} hat") for name in ("red", "blue"))
    request = CaptionRequest("a", picture("red", 1), examples, (7,))
    memory = CandidateStore(tmp_path / "m.sqlite").around(
        NearestCaptioner(NearestCaptionSettings()), {"kind": "nearest"}
    )
    for numbers, text in [((), "a red hat"), ((1,), "a blue hat"), ((0,), "a red hat")]:
        [answer] = memory.generate([replace(request, numbers=numbers)])
        assert [one.text for one in answer.candidates] == [text]
