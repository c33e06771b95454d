"""How much of a prompt a diffusion pipeline reads, beside what it writes around it itself."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from generators.prompts import token_count

logger = logging.getLogger(__name__)

# Short words, which every tokenizer knows and no pipeline cleans away.
_PROBE = "a red hat on the sun"


class _Read(Exception):
    """What a pipeline hands to its tokenizer for a prompt, and how many tokens it takes of that."""

    def __init__(self, text: str, limit: int | None) -> None:
        super().__init__(text)
        self.text, self.limit = text, limit


class _Watched:
    """A tokenizer (or a processor) that tells what it is asked to make tokens of, and makes none."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: Any = None, **named: Any) -> Any:
        while isinstance(text, (list, tuple)) and text:
            text = text[0]
        raise _Read(str(text), named.get("max_length") if named.get("truncation") else None)

    def apply_chat_template(self, turns: Any, **named: Any) -> Any:
        if not named.get("tokenize", True):
            return self._tokenizer.apply_chat_template(turns, **named)
        several = bool(turns) and isinstance(turns[0], (list, tuple))
        kept = ("add_generation_prompt", "chat_template", "enable_thinking")
        given = {name: named[name] for name in kept if name in named}
        text = self._tokenizer.apply_chat_template(
            turns[0] if several else turns, tokenize=False, **given
        )
        raise _Read(text, named.get("max_length") if named.get("truncation") else None)


def room_beside(pipe: Any, name: str, given: Mapping[str, Any]) -> int | None:
    """Tokens that a pipeline leaves to a prompt among those that it reads; None where it says none.

    A chat model's turns or a system prompt stand around the prompt and count with it (Z-Image, FLUX.2,
    Lumina 2): a prompt as long as all that is read would lose its end without a word.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    name : str
        The component that makes tokens, such as ``tokenizer``.
    given : mapping
        What it is called with, such as `max_sequence_length`.
    """
    import torch

    encode = getattr(pipe, "encode_prompt", None)
    taken = {} if encode is None else inspect.signature(encode).parameters
    if encode is None or "prompt" not in taken:
        return None
    needed = {field: None for field, one in taken.items() if one.default is one.empty}
    asked = {**needed, **{field: given[field] for field in given if field in taken}}
    tokenizer = getattr(pipe, name)
    # Past the setter, which looks for the component's class in a library.
    vars(pipe)[name] = _Watched(tokenizer)
    try:
        with torch.no_grad():
            encode(**{**asked, "prompt": _PROBE})
    except _Read as read:
        if read.limit is None or _PROBE not in read.text:
            return None
        words = words_of(tokenizer)
        around = token_count(words, read.text) - token_count(words, _PROBE)
        return read.limit - around
    except Exception as error:  # noqa: BLE001  whatever a pipeline makes of what it isn't told
        logger.debug("%s does not tell what it reads: %s", type(pipe).__name__, error)
    finally:
        vars(pipe)[name] = tokenizer
    return None


def words_of(tokenizer: Any) -> Any:
    """What makes tokens of words: of a processor, which takes pictures too, a part."""
    return getattr(tokenizer, "tokenizer", tokenizer)
