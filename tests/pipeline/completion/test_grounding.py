"""Through a whole run: the examples that are recorded are those that the model received, in order."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generators.blip2_settings import Blip2Settings
from generators.pictures import bounded, fitted_into, shrunk
from pipeline.config.config import load_config
from pipeline.job import Job
from pipeline.storage.errors import ConfigError
from tests import quick_worlds
from tests.generators import tiny_captioners, tiny_sdxl
from tests.generators.server import Server

GIVEN = {row["id"]: row for row in quick_worlds.rows(14, 3, 0)}
DRAWN = {row["id"]: row for row in quick_worlds.rows(14, 0, 3)}


def world(folder: Path, half: str, **changes: Any) -> Job:
    """Three rows that lack a half, and what makes it; two examples a row, one draw without."""
    given = GIVEN if half == "text" else DRAWN
    quick_worlds.write(folder / "data" / "a.parquet", list(given.values()))
    generation = {"n": 2, "attempts": 1, "ungrounded": {"text": 0.5, "image": 0.5}}
    defaults: dict[str, Any] = {
        "generation": generation,
        "knowledge_base": {
            "mapping": {"method": "start"},
            "device": "cpu",
            "retrieval": {"k": 5, "alpha": 0.5, "examples": 2},
        },
    }
    return Job(load_config(quick_worlds.config(folder, **(defaults | changes))))


def complete(job: Job, half: str, watch: Callable[[Any], None] = lambda made: None) -> list[dict]:
    """Complete, with the generator in the hands of `watch` before it is asked; the made rows."""
    with job.lock():
        job.begin()
        job.build()
        watch(job.models.generator(half))
        job.complete()
    rows = [row for row in quick_worlds.completed(job).values() if row["missing"] == half]
    assert {row["status"] for row in rows} <= {"completed", "rejected"}, rows
    assert len(rows) == 3
    return rows


def picture_of(pair: str) -> Image.Image:
    return Image.open(io.BytesIO((GIVEN | DRAWN)[pair]["image"]["bytes"]))


def text_of(pair: str) -> str:
    return (GIVEN | DRAWN)[pair]["text"]


def recorded(rows: list[dict]) -> list[tuple[dict, tuple[str, ...]]]:
    """Each candidate's row and the ids of the examples that it is recorded with, all checked."""
    found = []
    for row in rows:
        made = row["completion"]
        shown = [tuple(candidate["examples"]) for candidate in made["candidates"]]
        chosen = made["chosen"]
        ids = [example["id"] for example in made["examples"]]
        if chosen is None:
            assert ids == list(dict.fromkeys(one for each in shown for one in each))
        else:
            assert ids == list(shown[chosen])
        for example in made["examples"]:
            assert example["text"] == text_of(example["id"])
            assert example["source"] == "internal" and example["score"] is not None
        assert not {one["id"] for one in made["dropped"]} & {one for each in shown for one in each}
        found += [(row, each) for each in shown]
    return found


def pixels(image: Image.Image) -> bytes:
    return image.tobytes()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folder = tmp_path_factory.mktemp("models")

    def make(name: str) -> str:
        path = folder / name
        if not path.exists():
            if name == "blip2":
                tiny_captioners.blip2(path, "opt")
            elif name == "llava":
                tiny_captioners.llava(path)
            elif name == "sdxl":
                tiny_sdxl.sdxl(path)
            else:
                tiny_sdxl.ip_adapter(path, Path(make("sdxl")))
        return str(path)

    return make


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


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
    processor = job.models.generator("text")._processor.image_processor
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
    captioner = server.settings(kind="openai", retries=0)
    rows = complete(world(tmp_path, "text", captioner=captioner), "text")
    received = [_conversation(seen.fields["messages"]) for seen in server.seen]
    expected = []
    for row, ids in recorded(rows):
        own = Image.open(io.BytesIO(row["image"]["bytes"]))
        images = [picture_of(one) for one in ids] + [own]
        expected.append((tuple(map(text_of, ids)), tuple(map(_mean, images))))
    assert sorted(received) == sorted(expected)
    assert {len(texts) for texts, _ in received} == {0, 2}


def _conversation(messages: list[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    texts = tuple(one["content"] for one in messages if one["role"] == "assistant")
    addresses = [one["content"][0]["image_url"]["url"] for one in messages if one["role"] == "user"]
    images = [
        Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) for address in addresses
    ]
    return texts, tuple(map(_mean, images))


def _mean(image: Image.Image) -> tuple[int, ...]:
    """The colour of a square, which a compression leaves nearly as it is."""
    colour = np.asarray(image.convert("RGB"), float).mean(axis=(0, 1))
    return tuple(np.round(colour / 4).astype(int).tolist())


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
        if half == "text":
            assert row["text"] == text_of(example["id"])
        else:
            drawn = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
            assert pixels(drawn) == pixels(picture_of(example["id"]).convert("RGB"))


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
    tokenizer = job.models.generator("image")._pipe.tokenizer_2
    known = tokenizer(list(texts), padding="max_length")["input_ids"]
    assert prompts - {""} == set(tokenizer.batch_decode(known, skip_special_tokens=True))
    if grounding == "img2img":
        wanted = [fitted_into(picture_of(ids[0]), (64, 64)) for ids in shown]
        for image in wanted:
            pixels = (np.asarray(image, np.float32) / 127.5 - 1).transpose(2, 0, 1)
            assert any(np.allclose(pixels, start, atol=1e-5) for start in starts)
        assert len(starts) == 3
    else:
        assert starts == []
    if grounding == "ip_adapter":
        extractor = job.models.generator("image")._pipe.feature_extractor
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
    painter = server.settings(kind="openai", retries=0, grounding=grounding)
    rows = complete(world(tmp_path, "image", image_generator=painter), "image")
    asked = recorded(rows)
    assert len(server.seen) == len(asked) == 6
    if grounding == "edit":
        edits = [seen for seen in server.seen if seen.path.endswith("/edits")]
        sent = sorted(_mean(_upload(seen.body)) for seen in edits)
        assert sent == sorted(_mean(picture_of(ids[0])) for _, ids in asked if ids)
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

    def failing(data: bytes, limit: int) -> Image.Image:
        gone[:] = gone or [data]
        if data == gone[0]:
            raise UndecodableImage("truncated")
        return decode(data, limit)

    monkeypatch.setattr("pipeline.knowledge.standing.decode", failing)
    captioner = server.settings(kind="openai", retries=0)
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
    painter = server.settings(kind="openai", retries=0, grounding="none")
    job = world(tmp_path, "image", image_generator=painter)
    pq.write_table(table, path)
    complete(job, "image")
    prompts = {f"{row['text']}. It is small." for row in rows if row["image"] is None}
    assert {seen.fields["prompt"] for seen in server.seen} == prompts
