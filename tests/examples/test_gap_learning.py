"""What the recipe's captioner is taught, and what of it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.recipes.gap.lessons import School, nearest
from examples.recipes.gap.sighted import (
    Shape,
    SightedModel,
    begin_folder,
    open_sighted,
    read_language_model,
    save_look,
)
from examples.recipes.gap.train import sequences
from tests.examples.gap_parts import small_language_model

EYES = "tests.examples.gap_parts:small_eyes"
CAPTIONS = [
    ["Two dogs run in the snow .", "A dog and its friend run ."],
    ["A dog jumps over snow .", "The brown dog jumps ."],
    ["A man climbs a rock .", "A climber on a rock ."],
    ["A man sits on a rock .", "Somebody sits ."],
]


def test_the_nearest_are_those_of_brute_force_and_never_the_row_itself() -> None:
    rows = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -1)
    assert (nearest(rows, 3) == np.argsort(-likeness, axis=1)[:, :3]).all()


def test_examples_are_captions_of_other_photographs_mostly_of_those_alike() -> None:
    cells = np.random.default_rng(0).random((4, 4, 6)).astype(np.float16)
    school = School(cells, CAPTIONS)
    rng = np.random.default_rng(1)
    found = [school.find_example(0, rng) for _ in range(200)]
    likes = sum(text in ("A dog jumps over snow.", "The brown dog jumps.") for text in found)
    assert likes > 70
    lesson = school.lesson(2, 2, rng)
    assert len(lesson.examples) == 2 and lesson.row == 2


def test_a_strange_picture_has_its_channels_shuffled_and_an_example_of_its_own() -> None:
    cells = np.arange(3 * 4 * 6, dtype=np.float16).reshape(3, 4, 6)
    captions = [["one of a", "two of a"], ["one of b", "two of b"], ["one of c", "two of c"]]
    school = School(cells, captions)
    school.spread = 0.0
    rng = np.random.default_rng(0)
    lessons = [school.lesson(0, 1, rng) for _ in range(300)]
    strange = [lesson for lesson in lessons if lesson.strange]
    assert 80 < len(strange) < 160
    assert not any(school.lesson(0, 0, rng).strange for _ in range(50))
    # The example is the picture's other caption in most of them.
    told = [(one.answer, *one.examples) for one in strange]
    own = [pair for pair in told if pair[1] in captions[0]]
    assert len(own) > len(told) / 3
    assert all(answer != example for answer, example in own)
    kept, shuffled = school.changed(
        torch.from_numpy(cells[[1, 1]]), torch.tensor([False, True])
    ).numpy()
    assert sorted(kept[:, 0]) == sorted(cells[1, :, 0])
    assert not np.array_equal(kept, shuffled)
    ordered = np.sort(shuffled, axis=1)
    assert any(
        (ordered == np.sort(way, axis=1)).all() for way in (cells[1], cells[1][[1, 0, 3, 2]])
    )


def test_a_mirrored_picture_has_its_columns_swapped() -> None:
    cells = np.arange(4 * 4 * 6, dtype=np.float16).reshape(4, 4, 6)
    school = School(cells, CAPTIONS)
    school.spread = 0.0
    torch.manual_seed(0)
    seen = school.changed(torch.from_numpy(cells[[0] * 20]), torch.zeros(20, dtype=torch.bool))
    kinds = {tuple(one[:, 0].tolist()) for one in seen}
    assert kinds == {(0.0, 6.0, 12.0, 18.0), (6.0, 0.0, 18.0, 12.0)}


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_language_model(tmp_path_factory.mktemp("speaker"))


def begun(speaker: Path) -> tuple[SightedModel, Any]:
    torch.manual_seed(0)
    language_model, tokenizer = read_language_model(speaker, torch.float32)
    return SightedModel(language_model, tokenizer, Shape(EYES, channels=6, cells=4)), tokenizer


def test_what_is_seen_stands_between_the_first_token_and_the_prompt(speaker: Path) -> None:
    model, tokenizer = begun(speaker)
    words = model.get_input_embeddings().weight
    seen = model.seen(torch.randn(3, 4, 6))
    assert seen.shape == (3, 5, 32)
    assert torch.equal(seen[:, 0], words[tokenizer.bos_token_id].expand(3, -1))
    # As long as a word, so that neither drowns the other.
    assert torch.allclose(seen[:, 1:].norm(dim=-1).mean(), words.norm(dim=-1).mean(), rtol=0.1)


def test_states_foretell_each_token_from_what_stands_before_it_alone(speaker: Path) -> None:
    model, _ = begun(speaker)
    cells, tokens = torch.randn(2, 4, 6), torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    with torch.inference_mode():
        states = model.states(cells, tokens, tokens > 0)
        alone = model.states(cells[1:], tokens[1:, :2], tokens[1:, :2] > 0)
        changed = tokens.clone()
        changed[0, 3] = 11
        other = model.states(cells, changed, changed > 0)
    assert torch.allclose(states[1, :2], alone[0], atol=1e-5)
    assert torch.allclose(states[0], other[0], atol=1e-5)


def test_the_look_alone_learns_and_is_read_again(speaker: Path, tmp_path: Path) -> None:
    model, _ = begun(speaker)
    assert [name for name, part in model.named_parameters() if part.requires_grad] == [
        f"look.{name}" for name, _ in model.look.named_parameters()
    ]
    begin_folder(tmp_path, speaker)
    save_look(model.look, tmp_path)
    again, tokenizer = open_sighted(tmp_path, torch.float32)
    cells = torch.randn(1, 4, 6)
    assert torch.allclose(again.seen(cells), model.seen(cells), atol=1e-3)
    # The first token is the model's to put, before what is seen.
    assert tokenizer.bos_token_id not in tokenizer("a dog").input_ids


def test_a_folder_of_something_else_is_told_in_a_line(speaker: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no causal language model"):
        read_language_model(tmp_path, torch.float32)
    begin_folder(tmp_path, speaker)
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    with pytest.raises(ValueError, match=r"holds no captioner of this recipe: .*model_type"):
        open_sighted(tmp_path, torch.float32)


def test_a_lesson_is_prompt_and_answer_with_its_end(speaker: Path) -> None:
    _, tokenizer = begun(speaker)
    school = School(np.random.default_rng(0).random((4, 4, 6)).astype(np.float16), CAPTIONS)
    lessons = [school.lesson(row, 1, np.random.default_rng(row)) for row in range(3)]
    tokens, part = sequences(tokenizer, lessons, tokenizer.pad_token_id, tokenizer.eos_token_id)
    for row, lesson in enumerate(lessons):
        prompt = tokenizer.decode(tokens[row][part[row] == 1])
        assert prompt.endswith(f"Caption 1: {lesson.examples[0]} Caption 2:")
        answer = tokens[row][part[row] == 2]
        assert tokenizer.decode(answer[:-1]) == f" {lesson.answer}"
        assert answer[-1] == tokenizer.eos_token_id
