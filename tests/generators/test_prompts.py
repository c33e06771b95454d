"""Templates, and the budget that cuts the example before the row's own text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from generators.base import Dropped, Example
from generators.blip2_settings import Blip2Settings
from generators.grounding import NO_CAPTION, NO_ROOM
from generators.prompts import before_stop, check_template, first_tokens, fit, joined, token_count
from tests.generators.tiny_tokenizers import byte_tokenizer, clip_tokenizer


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> list:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    return [clip_tokenizer(folder), byte_tokenizer("opt")]


def pairs(*captions: str) -> list[Example]:
    return [Example(f"pair-{number}", caption) for number, caption in enumerate(captions, start=1)]


def similar(text: str, examples: Sequence[str]) -> str:
    return f"{text}, similar to: {examples[0]}" if examples else text


def test_the_papers_prompts() -> None:
    settings = Blip2Settings()
    assert settings.render([]) == "Please write a caption of the image. Caption:"
    assert settings.render(["a cat"]) == (
        "Please write two captions of the image. Caption 1: a cat Caption 2:"
    )
    assert settings.render(["a cat", "a dog "]) == (
        "Please write three captions of the image. Caption 1: a cat Caption 2: a dog Caption 3:"
    )


def test_what_fits_stays_whole_and_unremarked(tokenizers: list) -> None:
    prompt = fit(similar, "a red hat", pairs("a small boat"), tokenizers, 77)
    assert prompt.text == "a red hat, similar to: a small boat"
    assert prompt.notes == ()


@pytest.mark.parametrize("words", range(60, 78))
def test_the_example_is_cut_before_the_rows_own_text(tokenizers: list, words: int) -> None:
    own = " ".join(["moon"] * words)
    prompt = fit(similar, own, pairs("a Red hat " * 40), tokenizers, 77)
    assert all(token_count(one, prompt.text) <= 77 for one in tokenizers)
    if any(token_count(one, own) > 77 for one in tokenizers):
        assert prompt.notes[-1].startswith("text cut to")
        assert own.startswith(prompt.text)
    else:
        assert prompt.text.startswith(own)
        if prompt.shown:
            assert prompt.notes[0].startswith("example cut to ")
        else:
            assert prompt.dropped == (Dropped("pair-1", NO_ROOM),)


def test_a_cut_example_is_as_long_as_there_is_room_for(tokenizers: list) -> None:
    own = "a small boat on the sea"
    prompt = fit(similar, own, pairs("a Red hat " * 40), tokenizers[:1], 40)
    example = prompt.text.removeprefix(f"{own}, similar to: ")
    kept = int(prompt.notes[0].removeprefix("example cut to ").removesuffix(" tokens"))
    longer = first_tokens(tokenizers[0], "a Red hat " * 40, kept + 1)
    assert token_count(tokenizers[0], similar(own, [longer])) > 40
    # The letters stay as they were, though this tokenizer lower-cases.
    assert ("a Red hat " * 40).startswith(example)


def test_of_several_examples_the_last_goes_first(tokenizers: list) -> None:
    settings = Blip2Settings()
    prompt = fit(
        lambda _, examples: settings.render(examples),
        "",
        pairs("a red hat", "a green tree " * 30, "a blue boat " * 30),
        tokenizers[1:],
        40,
    )
    assert "Caption 1: a red hat Caption 2: a green tree" in prompt.text
    assert prompt.text.endswith("Caption 3:")
    assert prompt.notes[0].startswith("example 2 cut to ")
    assert prompt.shown == ("pair-1", "pair-2")
    assert prompt.dropped == (Dropped("pair-3", NO_ROOM),)


def test_without_a_limit_nothing_is_cut(tokenizers: list) -> None:
    assert fit(similar, "moon " * 500, pairs("hat"), tokenizers, None).notes == ()


def test_an_empty_example_is_none(tokenizers: list) -> None:
    prompt = fit(similar, "a hat", pairs("  ", "a boat"), tokenizers, None)
    assert prompt.text == "a hat, similar to: a boat"
    assert (prompt.shown, prompt.dropped) == (("pair-2",), (Dropped("pair-1", NO_CAPTION),))


@pytest.mark.parametrize(
    ("captions", "text"),
    [
        (["a red hat "], "a red hat "),
        (["a red hat", "It lies there.", "A  red hat"], "a red hat. It lies there."),
        (["一顶帽子。", "桌上"], "一顶帽子。 桌上"),
    ],
)
def test_several_captions_are_a_sentence_each(captions: list[str], text: str) -> None:
    assert joined(captions) == text


@pytest.mark.parametrize(
    ("template", "words"),
    [("{txt}", "got {txt}"), ("no place", "must hold {text}"), ("{text", "not a template")],
)
def test_a_wrong_template_is_refused_by_name(template: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_template("template", template, ("text",), ("text",))


def test_braces_in_a_caption_are_no_placeholders() -> None:
    assert "{text} {0}" in Blip2Settings().render(["{text} {0}"])


def test_the_caption_ends_before_the_next_one_that_a_model_goes_on_to_write() -> None:
    assert before_stop("a hat Caption 3: a cat", ["\n", "Caption 3:"]) == "a hat"
    assert before_stop(" a hat \n\n a cat", ["\n", "Caption 3:"]) == "a hat"
    assert before_stop("a hat", ["\n"]) == "a hat"


class Measured:
    """A tokenizer that counts the characters that it is given."""

    is_fast = True

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.characters = 0

    def __call__(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self.tokenizer(text, **options)


def test_a_very_long_text_is_not_read_again_and_again(tokenizers: list) -> None:
    measured = Measured(tokenizers[0])
    long = "a red hat on a table " * 10_000
    own = fit(similar, long, [], [measured], 77)
    assert own.notes == ("text cut to 75 tokens",) and long.startswith(own.text)
    given = fit(similar, "a hat", pairs(long, long), [measured], 77)
    assert given.shown == ("pair-1",) and given.dropped == (Dropped("pair-2", NO_ROOM),)
    # Its own, and both examples three times at most; a search by halves reads it 18 times each.
    assert measured.characters < 8 * len(long)
