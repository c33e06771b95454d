"""The prompt of an image: in plain text, and no longer than the text encoders read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from generators.base import Dropped, Example, ImageRequest
from generators.diffusion_pipeline import parameters
from generators.diffusion_settings import DiffusionSettings
from generators.prompts import Prompt, fit, plain


def image_prompt(
    settings: DiffusionSettings,
    pipe: Any,
    request: ImageRequest,
    usable: Sequence[Example],
    dropped: Sequence[Dropped],
) -> Prompt:
    """The prompt of a row, cut to the tokens that the text encoders take (77 of SDXL's).

    Parameters
    ----------
    settings, pipe, request
    usable : sequence of Example
        Those that ground the row, best first.
    dropped : sequence of Dropped
        The others.
    """

    def render(text: str, captions: Sequence[str]) -> str:
        if captions:
            return settings.example_template.format(text=text, example=captions[0])
        return settings.template.format(text=text)

    by_text = settings.grounding == "prompt"
    tokenizers, limit = readers(settings, pipe)
    in_prompt = [replace(one, text=plain(one.text, tokenizers)) for one in usable if by_text]
    prompt = fit(render, plain(request.text, tokenizers), in_prompt, tokenizers, limit)
    shown = prompt.shown if by_text else tuple(example.id for example in usable)
    notes = prompt.notes
    if settings.grounding != "none" and not usable:
        notes = (*notes, "no example: drawn from the text alone")
    return Prompt(prompt.text, notes, shown, (*prompt.dropped, *dropped))


def readers(settings: DiffusionSettings, pipe: Any) -> tuple[list[Any], int | None]:
    """The tokenizers of the text encoders that read most of a prompt, and how many tokens.

    Where one reads less than another, such as CLIP's 77 beside T5's 512, the text is not cut for it.
    """
    names = [name for name in pipe.components if name.startswith("tokenizer")]
    found = [one for one in (getattr(pipe, name) for name in names) if one is not None]
    asked = parameters(pipe).get("max_sequence_length")
    longest = getattr(settings, "arguments", {}).get("max_sequence_length")
    longest = longest or (asked.default if asked is not None else None)

    def limit(tokenizer: Any) -> int:
        own = int(tokenizer.model_max_length)
        # What CLIP reads is fixed; of the others' the pipeline says how much it asks for.
        clip = type(tokenizer).__name__.startswith("CLIP")
        return own if clip or not isinstance(longest, int) else min(own, longest)

    most = max((limit(tokenizer) for tokenizer in found), default=None)
    if most is None or most > 1_000_000:
        return found, None
    return [tokenizer for tokenizer in found if limit(tokenizer) == most], most
