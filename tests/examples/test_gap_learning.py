"""What the recipe's captioner is taught, and that it can take a word from its prompt alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from examples.recipes.gap.decoder import Shape, SightedDecoder
from examples.recipes.gap.lessons import School, nearest
from examples.recipes.gap.train import sequences
from examples.recipes.gap.words import learn_tokenizer, telling, with_made_up_words
from generators.sampling import SamplingSettings

CAPTIONS = [
    ["Two dogs run in the snow .", "A dog and its friend run ."],
    ["A dog jumps over snow .", "The brown dog jumps ."],
    ["A man climbs a rock .", "A climber on a rock ."],
    ["A man sits on a rock .", "Somebody sits ."],
]


def shape(**changes: int) -> Shape:
    given = {"vocabulary": 40, "end": 1, "pad": 0, "width": 32, "layers": 1, "heads": 2}
    return Shape(eyes="", channels=6, cells=4, **given, pointer=8, **changes)  # type: ignore[arg-type]


def test_made_up_words_are_the_same_in_example_and_answer_and_only_there() -> None:
    examples, answer = with_made_up_words(
        ["Two dogs run ."], "A dog climbs .", 1.0, np.random.default_rng(0)
    )
    (word,) = telling([answer]) - {"climb"}
    assert word not in ("dog", "dogs") and f"{word}s" in examples[0].lower()
    assert "climbs" in answer
    same = with_made_up_words(["Two dogs run ."], "A dog climbs .", 0.0, np.random.default_rng(0))
    assert same == (["Two dogs run ."], "A dog climbs .")


def test_any_word_can_be_spelled_by_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = learn_tokenizer([text for own in CAPTIONS for text in own], tmp_path)
    for text in (" a zorbel viaduct", " Überführung 7 ."):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    again = learn_tokenizer(["other"], tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()


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
    # What words are made up apart, the example is the picture's other caption in most of them.
    told = [(one.answer, *one.examples) for one in strange if one.answer in captions[0]]
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


def test_what_is_said_with_an_open_gate_stands_in_the_prompt() -> None:
    torch.manual_seed(0)
    model = SightedDecoder(shape()).eval()
    torch.nn.init.constant_(model.gate.bias, 50.0)
    cells, prompts = torch.randn(2, 4, 6), [[5, 6, 7], [30, 31, 32, 33, 34]]
    said, sound = model.speak(
        cells, prompts, [0, 0, 1], [1, 2, 3], SamplingSettings(max_new_tokens=6)
    )
    assert all(sound)
    assert set(said[0] + said[1]) <= {5, 6, 7} and set(said[2]) <= {30, 31, 32, 33, 34}


def test_what_is_drawn_is_what_a_whole_reading_foretells() -> None:
    torch.manual_seed(0)
    model = SightedDecoder(shape()).eval()
    cells, prompts = torch.randn(2, 4, 6), [[5, 6, 7], [30, 31, 32, 33, 34]]
    # So small a share leaves the likeliest token alone.
    settings = SamplingSettings(max_new_tokens=5, top_p=1e-6)
    said, _ = model.speak(cells, prompts, [0, 1], [1, 2], settings)
    for row, (prompt, text) in enumerate(zip(prompts, said, strict=True)):
        tokens = torch.tensor([prompt + text])
        opened = torch.arange(tokens.shape[1])[None] < len(prompt)
        with torch.inference_mode():
            states = model.read(cells[row : row + 1], tokens, tokens > 0).last_hidden_state
            memory = model.remember(states, tokens, opened)
            logs = model.tell(states[:, -len(text) - 1 : -1], memory)
            told = model.tell_of(states[:, -len(text) - 1 : -1], memory, tokens[:, -len(text) :])
        assert logs.exp().sum(-1).sub(1).abs().max() < 1e-3
        assert logs[0].argmax(-1).tolist() == text
        assert torch.allclose(told[0], logs[0].max(-1).values, atol=1e-5)


def test_a_lesson_is_prompt_and_answer_with_its_end(tmp_path: Path) -> None:
    tokenizer = learn_tokenizer([text for own in CAPTIONS for text in own], tmp_path)
    school = School(np.random.default_rng(0).random((4, 4, 6)).astype(np.float16), CAPTIONS)
    lessons = [school.lesson(row, 1, np.random.default_rng(row)) for row in range(3)]
    tokens, part = sequences(tokenizer, lessons, tokenizer.pad_token_id, tokenizer.eos_token_id)
    for row, lesson in enumerate(lessons):
        prompt = tokenizer.decode(tokens[row][part[row] == 1])
        assert prompt.endswith(f"Caption 1: {lesson.examples[0]} Caption 2:")
        answer = tokens[row][part[row] == 2]
        assert tokenizer.decode(answer[:-1]) == f" {lesson.answer}"
        assert answer[-1] == tokenizer.eos_token_id
