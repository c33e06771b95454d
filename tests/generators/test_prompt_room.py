"""What a pipeline writes around a prompt takes of the room for it: nothing is cut without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generators.base import Example, ImageRequest
from generators.diffusion import DiffusersSettings
from generators.diffusion_pipeline import arguments_of
from generators.diffusion_prompts import image_prompt, readers_of
from tests.generators.tiny_tokenizers import byte_tokenizer

TEMPLATE = (
    "{% for m in messages %}user: {% if m.content is string %}{{ m.content }}{% else %}"
    "{{ m.content[0].text }}{% endif %} end of what was said\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
WORDS = "a small green bird and a large yellow fish on the old boat with the sun and the moon "


class Reads:
    """A text encoder that notes what it reads, in the place of one that takes gigabytes."""

    def __new__(cls) -> Any:
        import torch

        class Encoder(torch.nn.Module):
            dtype = torch.float32
            device = torch.device("cpu")
            config = None

            def __init__(self) -> None:
                super().__init__()
                self.read: list[list[int]] = []

            def forward(self, input_ids: Any, attention_mask: Any, **rest: Any) -> Any:
                kept = attention_mask.bool()
                self.read += [row[own].tolist() for row, own in zip(input_ids, kept, strict=True)]
                states = [torch.zeros(*input_ids.shape, 4)] * 40
                return type("Output", (), {"hidden_states": states})()

        return Encoder()


def z_image(encoder: Any, tokenizer: Any) -> Any:
    from diffusers import ZImagePipeline

    return ZImagePipeline(
        scheduler=None, vae=None, text_encoder=encoder, tokenizer=tokenizer, transformer=None
    )


def flux_2(encoder: Any, tokenizer: Any) -> Any:
    from diffusers import Flux2Pipeline

    return Flux2Pipeline(
        scheduler=None, vae=None, text_encoder=encoder, tokenizer=tokenizer, transformer=None
    )


def lumina_2(encoder: Any, tokenizer: Any) -> Any:
    from diffusers import Lumina2Pipeline

    return Lumina2Pipeline(
        scheduler=None, vae=None, text_encoder=encoder, tokenizer=tokenizer, transformer=None
    )


@pytest.mark.parametrize("family", [z_image, flux_2, lumina_2])
def test_the_end_of_a_grounded_prompt_reaches_a_text_encoder_that_is_a_chat_model(
    family: Callable[[Any, Any], Any],
) -> None:
    tokenizer = byte_tokenizer("llama")
    tokenizer.model_max_length = 4096
    tokenizer.chat_template = TEMPLATE
    encoder = Reads()
    pipe = family(encoder, tokenizer)
    settings = DiffusersSettings(model="m", grounding="prompt")
    readers = readers_of(settings, pipe)
    assert encoder.read == [] and pipe.tokenizer is tokenizer
    request = ImageRequest("row", WORDS, (Example("pair", WORDS * 60),), (1,))
    prompt = image_prompt(settings, readers, request, request.examples, ())
    assert prompt.shown == ("pair",) and prompt.notes[0].startswith("example cut to ")
    pipe.encode_prompt(prompt=[prompt.text], device="cpu")
    read = tokenizer.decode(encoder.read[0])
    assert prompt.text in read
    # No more is cut than has to be.
    longer = len(tokenizer(read + WORDS)["input_ids"])
    assert longer > (256 if family is lumina_2 else 512)


def test_an_encoder_that_was_left_out_of_a_checkpoint_reads_nothing(
    stable_diffusion_3: Path,
) -> None:
    from diffusers import StableDiffusion3Pipeline

    settings = DiffusersSettings(model="m", grounding="none")
    whole = StableDiffusion3Pipeline.from_pretrained(stable_diffusion_3)
    without = StableDiffusion3Pipeline.from_pretrained(stable_diffusion_3, text_encoder_3=None)
    assert without.tokenizer_3 is not None
    assert (readers_of(settings, whole).limit, readers_of(settings, without).limit) == (256, 77)


def test_a_pipeline_that_cleans_captions_by_itself_is_told_not_to() -> None:
    """PixArt and IF would drop addresses, brackets and more of a prompt that is recorded whole."""
    from diffusers import PixArtAlphaPipeline

    plain = DiffusersSettings(model="m", grounding="none")
    wanted = DiffusersSettings(model="m", grounding="none", arguments={"clean_caption": True})
    pipe = object.__new__(PixArtAlphaPipeline)
    told = [arguments_of(one, pipe, (64, 64), [])["clean_caption"] for one in (plain, wanted)]
    assert told == [False, True]
