"""Prompts from templates, cut to a model's length without losing the row's own text first."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import BaseModel, Field, field_validator

from generators.base import Dropped, Example
from generators.grounding import NO_CAPTION, NO_ROOM

NUMBER_WORDS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
)
# Characters of a text that are tried at first where it has to be cut.
_LOOKED_AT = 4096


class TextTokenizer(Protocol):
    """What the budget needs of a tokenizer."""

    def __call__(self, text: str, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that fits, the examples that stand in it, and what had to go for it."""

    text: str
    notes: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()


def check_template(field: str, template: str, allowed: Sequence[str], needed: Sequence[str]) -> str:
    """Return the template, or say which of its placeholders is wrong.

    Raises
    ------
    ValueError
        When a placeholder is unknown, a needed one is missing, or a brace is not closed.
    """
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ValueError(f"{field} is not a template: {error}; got {template!r}") from error
    names = ", ".join("{" + name + "}" for name in allowed) or "no placeholder"
    if unknown := sorted(found - set(allowed)):
        raise ValueError(f"{field} may hold {names}; got {{{unknown[0]}}} in {template!r}")
    if missing := [name for name in needed if name not in found]:
        raise ValueError(f"{field} must hold {{{missing[0]}}}; got {template!r}")
    return template


class ImagePromptSettings(BaseModel):
    """The prompts of an image generator."""

    template: str = Field("{text}", description="Prompt of a row.")
    example_template: str = Field(
        "{text}, similar to: {example}", description="Prompt of a row with grounding prompt."
    )

    @field_validator("template")
    @classmethod
    def _template(cls, value: str) -> str:
        return check_template("template", value, ("text",), ("text",))

    @field_validator("example_template")
    @classmethod
    def _example_template(cls, value: str) -> str:
        return check_template("example_template", value, ("text", "example"), ("text", "example"))


def number_word(number: int) -> str:
    """A small number in words, as in "two captions"; digits above ten.

    Examples
    --------
    >>> number_word(2), number_word(12)
    ('two', '12')
    """
    return NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else str(number)


def before_stop(text: str, stops: Sequence[str]) -> str:
    """A generated text up to the first of the stops, without the space around it.

    Examples
    --------
    >>> before_stop(" a red hat Caption 3: a hat", ["Caption 3:"])
    'a red hat'
    """
    text = text.strip()
    ends = [text.find(stop) for stop in stops]
    return text[: min((end for end in ends if end >= 0), default=len(text))].strip()


def plain(text: str, tokenizers: Sequence[Any]) -> str:
    """A text in which no tokenizer finds a control token: each that it spells is broken by a space.

    A caption that holds "<image>" or an end-of-text mark would otherwise end the prompt there, or
    stand for a picture that is none. What is recorded of the prompt is then what the model got.
    """
    for mark in sorted(set().union(*map(_control_tokens, tokenizers)), key=len, reverse=True):
        while mark in text:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text


def _control_tokens(tokenizer: Any) -> set[str]:
    """The tokens of a tokenizer that stand for no text."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    own = {one.content for one in added if one.special or one.content.startswith("<")}
    found = own | set(getattr(tokenizer, "all_special_tokens", ()))
    return {mark for mark in found if len(mark.strip()) > 1}


def token_count(tokenizer: Any, text: str) -> int:
    """Tokens of a text with the special ones that the model adds."""
    return len(tokenizer(text, verbose=False)["input_ids"])


def first_tokens(tokenizer: Any, text: str, count: int) -> str:
    """The part of a text that its first ``count`` tokens cover, special tokens aside.

    Fast tokenizers tell where each token lies in the text, so that the cut keeps the letters as they
    were; others decode the tokens.
    """
    if count <= 0:
        return ""
    if getattr(tokenizer, "is_fast", False):
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        offsets = encoded["offset_mapping"]
        return text if len(offsets) <= count else text[: offsets[count - 1][1]].rstrip()
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return text if len(ids) <= count else tokenizer.decode(ids[:count]).strip()


def joined(captions: Sequence[str]) -> str:
    """All that a row's captions say, as one text: a sentence each, in order, repeated ones once.

    Examples
    --------
    >>> joined(["a red hat", "A hat on a table.", "a red hat"])
    'a red hat. A hat on a table.'
    """
    if len(captions) == 1:
        return captions[0]
    kept: dict[str, str] = {}
    for caption in captions:
        kept.setdefault(" ".join(caption.split()).casefold(), caption.strip())
    *before, last = kept.values()
    return " ".join([*(text if _ends(text) else f"{text}." for text in before), last])


def _ends(text: str) -> bool:
    return unicodedata.category(text[-1:] or " ") == "Po"


def fit(
    render: Callable[[str, Sequence[str]], str],
    text: str,
    examples: Sequence[Example],
    tokenizers: Sequence[Any],
    limit: int | None,
) -> Prompt:
    """Render a prompt of at most ``limit`` tokens.

    What is cut goes in this order: the last example down to nothing, then the one before it, and only
    then the row's own text.

    Parameters
    ----------
    render : callable
        ``render(text, captions)`` gives the prompt; ``captions`` may be empty.
    text : str
        The row's own text; empty when the row has an image.
    examples : sequence of Example
        The retrieved pairs, best first. One without a caption is dropped.
    tokenizers : sequence of tokenizers
        Every one of them has to fit.
    limit : int or None
        Most tokens, special ones included; None for no limit.

    Returns
    -------
    Prompt
        With a note for each cut, and the examples of which something stands in it.
    """
    kept = [example for example in examples if example.text.strip()]
    dropped = [Dropped(one.id, NO_CAPTION) for one in examples if not one.text.strip()]

    def prompt(text: str) -> str:
        return render(text, [example.text for example in kept])

    def fits(prompt: str) -> bool:
        return limit is None or all(token_count(one, prompt) <= limit for one in tokenizers)

    notes: list[str] = []
    while kept and not fits(prompt(text)):
        number, last = len(kept), kept.pop()
        before = [example.text for example in kept]

        def fits_cut(cut: str, before: list[str] = before) -> bool:
            return fits(render(text, [*before, cut]))

        # Where those before have no room already, no part of it has.
        full = bool(before) and not fits(render(text, before))
        cut, tokens = ("", 0) if full else _longest_cut(last.text, tokenizers[0], fits_cut)
        if cut:
            kept.append(replace(last, text=cut))
            name = "example" if number == 1 else f"example {number}"
            notes.insert(0, f"{name} cut to {tokens} tokens")
            break
        dropped.append(Dropped(last.id, NO_ROOM))
    if text and not fits(prompt(text)):

        def fits_alone(cut: str) -> bool:
            return fits(render(cut, []))

        text, tokens = _longest_cut(text, tokenizers[0], fits_alone)
        notes.append(f"text cut to {tokens} tokens")
    shown = tuple(example.id for example in kept)
    order = {example.id: place for place, example in enumerate(examples)}
    left = tuple(sorted(dropped, key=lambda one: order[one.id]))
    return Prompt(prompt(text), tuple(notes), shown, left)


def _longest_cut(text: str, tokenizer: Any, fits: Callable[[str], bool]) -> tuple[str, int]:
    """The longest part of a text, from its start, that fits, and its tokens; ("", 0) when none does.

    Of a very long text the end is never looked at: a megabyte takes a tokenizer seconds each time.
    """
    size = _LOOKED_AT
    while 2 * size < len(text):
        if not fits(text[:size]):
            # Twice that, so that the tokens in question are far from the end.
            text = text[: 2 * size]
            break
        size *= 2
    low, high = 0, len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    while low < high:
        middle = (low + high + 1) // 2
        cut = first_tokens(tokenizer, text, middle)
        if cut and fits(cut):
            low = middle
        else:
            high = middle - 1
    return first_tokens(tokenizer, text, low), low
