"""The prompt of an image: in plain text, and no longer than the text encoders read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from generators.base import Dropped, Example, ImageRequest
from generators.diffusion_pipeline import parameters
from generators.diffusion_settings import DiffusionSettings
from generators.prompt_room import room_beside, words_of
from generators.prompts import Prompt, fit, plain


def image_prompt(
    settings: DiffusionSettings,
    readers: Readers,
    request: ImageRequest,
    usable: Sequence[Example],
    dropped: Sequence[Dropped],
) -> Prompt:
    """The prompt of a row, cut to the tokens that the text encoders take (77 of SDXL's).

    Parameters
    ----------
    settings, readers, request
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
    tokenizers, limit = readers.tokenizers, readers.limit
    in_prompt = [replace(one, text=plain(one.text, tokenizers)) for one in usable if by_text]
    prompt = fit(render, plain(request.text, tokenizers), in_prompt, tokenizers, limit)
    shown = prompt.shown if by_text else tuple(example.id for example in usable)
    notes = prompt.notes
    if settings.grounding != "none" and not usable:
        notes = (*notes, "no example: drawn from the text alone")
    return Prompt(prompt.text, notes, shown, (*prompt.dropped, *dropped))


@dataclass(frozen=True, slots=True)
class Readers:
    """The tokenizers of the text encoders that read most of a prompt, and how many tokens of it."""

    tokenizers: Sequence[Any]
    limit: int | None


def readers_of(settings: DiffusionSettings, pipe: Any) -> Readers:
    """What reads the prompts of a pipeline.

    Where one encoder reads less than another, such as CLIP's 77 tokens beside T5's 512, the text is not
    cut for it; one that was left out of the checkpoint reads nothing.
    """
    asked = parameters(pipe).get("max_sequence_length")
    given = dict(getattr(settings, "arguments", {}))
    if asked is not None and isinstance(asked.default, int):
        given.setdefault("max_sequence_length", asked.default)
    found: dict[str, Any] = {}
    for name in pipe.components:
        encoder = name.replace("tokenizer", "text_encoder", 1)
        parts = [pipe.components[one] for one in (name, encoder) if one in pipe.components]
        if name.startswith("tokenizer") and None not in parts:
            found[name] = words_of(parts[0])
    limits = {name: _limit(pipe, name, found[name], given) for name in found}
    most = max(limits.values(), default=None)
    if most is None or most > 1_000_000:
        return Readers(list(found.values()), None)
    return Readers([one for name, one in found.items() if limits[name] == most], most)


def _limit(pipe: Any, name: str, tokenizer: Any, given: Mapping[str, Any]) -> int:
    """Tokens of a prompt that are read by the encoder of a tokenizer."""
    own = int(tokenizer.model_max_length)
    if type(tokenizer).__name__.startswith("CLIP"):
        # What it reads is fixed; of the others' the pipeline says how much it asks for.
        return own
    limits = [own, given.get("max_sequence_length"), room_beside(pipe, name, given)]
    return min(limit for limit in limits if isinstance(limit, int))
