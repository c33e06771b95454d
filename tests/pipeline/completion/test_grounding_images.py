"""Through a whole run: the examples recorded of a picture are those that its model received."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generators.pictures import bounded, covering
from tests import quick_worlds
from tests.generators.server import Server
from tests.pipeline.completion.grounded import (
    DRAWN,
    complete,
    picture_of,
    pixels,
    recorded,
    text_of,
    world,
)


@pytest.mark.parametrize("half", ["text", "image"])
def test_nearest_answers_with_what_is_recorded_and_is_asked_with_an_example_alone(
    tmp_path: Path, half: str
) -> None:
    part = {"captioner": {"kind": "nearest"}, "image_generator": {"kind": "nearest"}}
    rows = complete(world(tmp_path, half, **part), half)
    for row in rows:
        made = row["completion"]
        assert row["status"] == "completed"
        assert len(made["candidates"]) == 2
        assert all(len(candidate["examples"]) == 1 for candidate in made["candidates"])
        (example,) = made["examples"]
        assert example["shown"] == [half]
        if half == "text":
            assert row["text"] == text_of(example["id"])
        else:
            drawn = Image.open(io.BytesIO(row["image"]["bytes"]))
            assert drawn.format == "WEBP"
            near = np.asarray(drawn, int) - np.asarray(
                picture_of(example["id"]).convert("RGB"), int
            )
            assert drawn.size == picture_of(example["id"]).size
            assert np.abs(near).mean() < 12


@pytest.mark.parametrize("grounding", ["none", "prompt", "img2img", "ip_adapter"])
def test_sdxl_is_given_what_is_recorded(tmp_path: Path, checkpoints: Any, grounding: str) -> None:
    painter = {
        "kind": "sdxl",
        "model": checkpoints("sdxl"),
        "grounding": grounding,
        "steps": 2,
        "ip_adapter": {"model": checkpoints("ip_adapter")},
    }
    prompts: set[str] = set()
    starts: list[np.ndarray] = []
    seen: list[np.ndarray] = []

    def watch(made: Any) -> None:
        pipe = made._pipe

        def read(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            ids = args[0] if args else kwargs["input_ids"]
            prompts.update(pipe.tokenizer_2.batch_decode(ids, skip_special_tokens=True))

        pipe.text_encoder_2.register_forward_pre_hook(read, with_kwargs=True)
        pipe.vae.encoder.register_forward_pre_hook(
            lambda module, args: starts.extend(args[0].float().numpy())
        )
        if grounding == "ip_adapter":
            pipe.image_encoder.register_forward_pre_hook(
                lambda module, args: seen.extend(args[0].float().numpy())
            )

    job = world(tmp_path, "image", image_generator=painter)
    rows = complete(job, "image", watch)
    asked = recorded(rows)
    sizes = {"none": {0}, "prompt": {0, 1}, "img2img": {0, 1}, "ip_adapter": {0, 2}}
    assert {len(ids) for _, ids in asked} == sizes[grounding]
    shown = list(dict.fromkeys(ids for _, ids in asked if ids))
    texts = {row["text"] for row in rows}
    if grounding == "prompt":
        texts = {
            f"{row['text']}, similar to: {text_of(ids[0])}" if ids else row["text"]
            for row, ids in asked
        }
    # The tiny tokenizer knows neither digits nor punctuation.
    tokenizer = job.models.generator("image").generator._pipe.tokenizer_2
    known = tokenizer(list(texts), padding="max_length")["input_ids"]
    assert prompts - {""} == set(tokenizer.batch_decode(known, skip_special_tokens=True))
    if grounding == "img2img":
        wanted = [covering(picture_of(ids[0]), (64, 64)) for ids in shown]
        for image in wanted:
            pixels = (np.asarray(image, np.float32) / 127.5 - 1).transpose(2, 0, 1)
            assert any(np.allclose(pixels, start, atol=1e-5) for start in starts)
        assert len(starts) == 3
    else:
        assert starts == []
    if grounding == "ip_adapter":
        extractor = job.models.generator("image").generator._pipe.feature_extractor
        for ids in shown:
            images = [bounded(picture_of(one)) for one in ids]
            wanted = extractor(images, return_tensors="pt").pixel_values.numpy()
            assert any(
                np.allclose(wanted, np.stack(seen[place : place + 2]), atol=1e-5)
                for place in range(len(seen) - 1)
            )
    for row in rows:
        reasons = {one["reason"] for one in row["completion"]["dropped"]}
        assert reasons == ({"beyond the first 1"} if grounding in ("prompt", "img2img") else set())


@pytest.mark.parametrize("grounding", ["none", "prompt", "edit"])
def test_a_server_that_paints_gets_what_is_recorded(
    tmp_path: Path, server: Server, grounding: str
) -> None:
    painter = server.settings(kind="openai", retries=0, lossless=True, grounding=grounding)
    rows = complete(world(tmp_path, "image", image_generator=painter), "image")
    asked = recorded(rows)
    assert len(server.seen) == len(asked) == 6
    halves = [one["shown"] for row in rows for one in row["completion"]["examples"]]
    assert halves == [["image" if grounding == "edit" else "text"]] * len(halves)
    if grounding == "edit":
        edits = [seen for seen in server.seen if seen.path.endswith("/edits")]
        sent = sorted(pixels(_upload(seen.body)) for seen in edits)
        assert sent == sorted(pixels(picture_of(ids[0])) for _, ids in asked if ids)
        return
    prompts = sorted(seen.fields["prompt"] for seen in server.seen)
    assert prompts == sorted(
        f"{row['text']}, similar to: {text_of(ids[0])}" if ids else row["text"]
        for row, ids in asked
    )
    assert any(ids for _, ids in asked) == (grounding == "prompt")


def _upload(body: bytes) -> Image.Image:
    start = min(place for mark in (b"\x89PNG", b"\xff\xd8\xff") if (place := body.find(mark)) >= 0)
    return Image.open(io.BytesIO(body[start:]))


def test_a_picture_is_drawn_of_all_captions_of_its_row(tmp_path: Path, server: Server) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(DRAWN.values())
    path = tmp_path / "data" / "a.parquet"
    path.parent.mkdir()
    texts = [[row["text"], "It is small."] for row in rows]
    table = pa.table(
        {
            "id": [row["id"] for row in rows],
            "image": pa.array([row["image"] for row in rows], quick_worlds.IMAGE),
            "text": texts,
        }
    )
    painter = server.settings(kind="openai", retries=0, lossless=True, grounding="none")
    job = world(tmp_path, "image", image_generator=painter)
    pq.write_table(table, path)
    complete(job, "image")
    prompts = {f"{row['text']}. It is small." for row in rows if row["image"] is None}
    assert {seen.fields["prompt"] for seen in server.seen} == prompts
