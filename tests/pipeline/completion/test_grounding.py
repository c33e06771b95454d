"""Through a whole run: the examples that are recorded are those that the model received, in order."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generators.blip2_settings import Blip2Settings
from generators.pictures import shrunk
from pipeline.storage.errors import ConfigError
from tests.generators.server import Server
from tests.pipeline.completion.grounded import (
    GIVEN,
    complete,
    picture_of,
    pixels,
    recorded,
    text_of,
    world,
)


def test_blip2_reads_the_captions_that_are_recorded(tmp_path: Path, checkpoints: Any) -> None:
    captioner = {"kind": "blip2", "model": checkpoints("blip2"), "max_new_tokens": 4}
    prompts: list[str] = []

    def watch(made: Any) -> None:
        tokenizer = made._processor.tokenizer

        def read(module: Any, inputs: tuple[torch.Tensor]) -> None:
            for row in inputs[0]:
                text = tokenizer.decode(row, skip_special_tokens=True)
                if "write" in text:
                    prompts.append(text)

        made._model.get_input_embeddings().register_forward_pre_hook(read)

    rows = complete(world(tmp_path, "text", captioner=captioner), "text", watch)
    settings = Blip2Settings()
    expected = {settings.render([text_of(one) for one in ids]) for _, ids in recorded(rows)}
    assert {prompt.strip() for prompt in prompts} == expected
    assert {len(ids) for _, ids in recorded(rows)} == {0, 2}


def test_an_example_without_room_is_recorded_as_dropped(tmp_path: Path, checkpoints: Any) -> None:
    captioner = {"kind": "blip2", "model": checkpoints("blip2"), "max_new_tokens": 4}
    room = captioner | {"max_prompt_tokens": 24}
    for row in complete(world(tmp_path, "text", captioner=room), "text"):
        made = row["completion"]
        assert {one["reason"] for one in made["dropped"]} == {"no room in the prompt"}
        assert all(one["source"] == "internal" for one in made["dropped"])
        shown = {one for candidate in made["candidates"] for one in candidate["examples"]}
        assert len(shown) + len(made["dropped"]) == 2


def test_vlm_sees_the_pairs_that_are_recorded_pictures_too(
    tmp_path: Path, checkpoints: Any
) -> None:
    captioner = {"kind": "vlm", "model": checkpoints("llava"), "max_new_tokens": 4}
    received: list[tuple[str, int, bytes]] = []

    def watch(made: Any) -> None:
        tokenizer = made._processor.tokenizer

        seen: list[torch.Tensor] = []

        def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            seen.extend(args[0] if args else kwargs["pixel_values"])

        def read(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            pictures = iter(seen.copy())
            if not seen:
                return
            seen.clear()
            for text in tokenizer.batch_decode(kwargs["input_ids"], skip_special_tokens=True):
                held = [next(pictures) for _ in range(text.count("user:"))]
                received.append((" ".join(text.split()), len(held), torch.stack(held).numpy()))

        made._model.model.vision_tower.register_forward_pre_hook(look, with_kwargs=True)
        made._model.register_forward_pre_hook(read, with_kwargs=True)

    job = world(tmp_path, "text", captioner=captioner)
    rows = complete(job, "text", watch)
    processor = job.models.generator("text").generator._processor.image_processor
    asked = recorded(rows)
    for row, ids in asked:
        own = Image.open(io.BytesIO(row["image"]["bytes"]))
        images = [shrunk(picture_of(one), 768) for one in ids] + [shrunk(own, 768)]
        wanted = processor(images, return_tensors="pt")["pixel_values"].numpy()
        captions = [text_of(one) for one in ids]
        (match,) = {
            text
            for text, count, held in received
            if count == len(images) and np.allclose(held, wanted, atol=1e-5)
        }
        places = [match.index(caption) for caption in captions]
        assert places == sorted(places)
    assert {len(ids) for _, ids in asked} == {0, 2}


def test_a_server_gets_the_pairs_that_are_recorded_pictures_too(
    tmp_path: Path, server: Server
) -> None:
    captioner = server.settings(kind="openai", retries=0, lossless=True)
    rows = complete(world(tmp_path, "text", captioner=captioner), "text")
    received = [_conversation(seen.fields["messages"]) for seen in server.seen]
    expected = []
    for row, ids in recorded(rows):
        own = Image.open(io.BytesIO(row["image"]["bytes"]))
        images = [picture_of(one) for one in ids] + [own]
        expected.append((tuple(map(text_of, ids)), tuple(map(pixels, images))))
    assert sorted(received) == sorted(expected)
    assert {len(texts) for texts, _ in received} == {0, 2}


def _conversation(messages: list[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    texts = tuple(one["content"] for one in messages if one["role"] == "assistant")
    addresses = [one["content"][0]["image_url"]["url"] for one in messages if one["role"] == "user"]
    images = [
        Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) for address in addresses
    ]
    return texts, tuple(map(pixels, images))


def test_a_class_of_ones_own_is_recorded_as_it_says(tmp_path: Path) -> None:
    kind = "examples.own_captioner:AgreementCaptioner"
    for row in complete(world(tmp_path, "text", captioner={"kind": kind}), "text"):
        made = row["completion"]
        assert all(len(candidate["examples"]) == 2 for candidate in made["candidates"])
        assert row["text"] in {example["text"] for example in made["examples"]}


def test_a_class_of_ones_own_that_errs_without_an_example_keeps_its_other_candidates(
    tmp_path: Path,
) -> None:
    kind = "tests.pipeline.completion.own_captioners:Undeclared"
    for row in complete(world(tmp_path, "text", captioner={"kind": kind}), "text"):
        made = row["completion"]
        assert row["status"] == "completed"
        (candidate,) = made["candidates"]
        assert candidate["notes"] == ["others failed: no example has a caption"]


def test_a_class_that_says_what_it_was_not_given_ends_the_run(tmp_path: Path) -> None:
    kind = "tests.pipeline.completion.own_captioners:Boaster"
    with pytest.raises(ConfigError, match="captioner: .* shown example 'unheard of', which was"):
        complete(world(tmp_path, "text", captioner={"kind": kind}), "text")


def test_a_pair_whose_picture_is_gone_is_recorded_as_dropped(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.dataset.images import UndecodableImage, decode

    gone: list[bytes] = []

    def failing(data: bytes, limit: int, least_side: int | None) -> Image.Image:
        gone[:] = gone or [data]
        if data == gone[0]:
            raise UndecodableImage("truncated")
        return decode(data, limit)

    monkeypatch.setattr("pipeline.knowledge.standing.decode", failing)
    captioner = server.settings(kind="openai", retries=0, lossless=True)
    rows = complete(world(tmp_path, "text", captioner=captioner), "text")
    dropped = [one for row in rows for one in row["completion"]["dropped"]]
    assert dropped
    for one in dropped:
        assert (GIVEN[one["id"]]["image"]["bytes"], one["source"]) == (gone[0], "internal")
        assert one["reason"] == "the picture can't be decoded any more: truncated"
    recorded(rows)


def test_without_grounding_what_needs_an_example_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="generation.grounded: must be true, since captioner near"
    ):
        world(tmp_path, "text", captioner={"kind": "nearest"}, generation={"grounded": False})
