from __future__ import annotations

import importlib
import io
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kb.embeddings import normalise
from kb.encoders import ENCODERS
from kb.encoders.base import open_image
from kb.encoders.open_clip import OpenClipEncoder, OpenClipSettings
from kb.encoders.pair import PairEncoder, PairSettings
from kb.encoders.transformers import TransformersEncoder, TransformersSettings
from tests.kb.encoders.tiny_tokenizer import save_tokenizer


def picture(seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


PICTURES = [picture(seed) for seed in range(5)]
TEXTS = ["a cat", "the red house", "a dog on the house", "cat", "dog"]


@pytest.fixture(params=["open_clip", "transformers", "pair"])
def encoder(
    request: pytest.FixtureRequest,
    open_clip_folder: Path,
    clip_folder: Path,
    bert_folder: Path,
    vit_folder: Path,
):
    module, name = ENCODERS[request.param].split(":")
    kind = getattr(importlib.import_module(module), name)
    if request.param == "pair":
        settings = kind.Settings(
            image={"kind": "transformers", "model": str(vit_folder), "modalities": ["image"]},
            text={"kind": "transformers", "model": str(bert_folder), "modalities": ["text"]},
        )
    else:
        folder = open_clip_folder if request.param == "open_clip" else clip_folder
        settings = kind.Settings(model=str(folder), batch_size=2, device="cpu")
    return kind(settings, {role: Path(model) for role, (model, _) in settings.models().items()})


def test_every_encoder_gives_unit_rows_of_its_dimension(encoder) -> None:
    for modality, items in (("image", PICTURES), ("text", TEXTS)):
        embeddings = encoder.encode(items, modality)
        assert embeddings.dtype == np.float32
        assert embeddings.shape == (5, encoder.dimension(modality))
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
        # Different items, different embeddings.
        assert (embeddings @ embeddings.T)[~np.eye(5, dtype=bool)].max() < 1 - 1e-6


def test_every_encoder_answers_alike_at_any_batch_and_in_any_order(encoder) -> None:
    for modality, items in (("image", PICTURES), ("text", TEXTS)):
        together = encoder.encode(iter(items), modality)
        alone = np.concatenate([encoder.encode([item], modality) for item in reversed(items)])
        np.testing.assert_allclose(together, alone[::-1], atol=1e-5)


def test_every_encoder_takes_nothing_and_gives_no_rows(encoder) -> None:
    assert encoder.encode([], "text").shape == (0, encoder.dimension("text"))


def test_every_encoder_reads_pictures_from_bytes_and_paths(encoder, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PICTURES[0].save(buffer, "PNG")
    (tmp_path / "p.png").write_bytes(buffer.getvalue())
    found = encoder.encode([PICTURES[0], buffer.getvalue(), tmp_path / "p.png"], "image")
    np.testing.assert_allclose(found[1:], found[[0, 0]], atol=1e-6)


def test_every_encoder_embeds_what_it_prepared_as_it_does_the_pictures(encoder) -> None:
    encoder.load()
    expected = encoder.encode(PICTURES, "image")
    prepared = [encoder.prepare(picture) for picture in PICTURES]
    np.testing.assert_allclose(encoder.encode(iter(prepared), "image"), expected, atol=1e-6)
    # One that could not be prepared stands as it is among them.
    mixed = [*prepared[:2], PICTURES[2], *prepared[3:]]
    np.testing.assert_allclose(encoder.encode(mixed, "image"), expected, atol=1e-6)


def test_every_encoder_says_how_large_a_jpeg_it_needs(encoder) -> None:
    encoder.load()
    assert encoder.jpeg_side == 2 * 32
    assert encoder.pictures_ahead >= 4


def test_a_jpeg_at_a_smaller_scale_of_its_own_has_nearly_the_embedding(encoder) -> None:
    encoder.load()
    small = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    full, scaled = encoder.encode(
        [open_image(buffer.getvalue()), open_image(buffer.getvalue(), encoder.jpeg_side)], "image"
    )
    assert full @ scaled > 0.9999


def test_every_encoder_loads_again_after_close(encoder) -> None:
    before = encoder.encode(TEXTS, "text")
    encoder.close()
    np.testing.assert_array_equal(encoder.encode(TEXTS, "text"), before)


def test_open_clip_embeddings_are_those_of_the_library(open_clip_folder: Path) -> None:
    import open_clip

    name = f"local-dir:{open_clip_folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model.eval()
    with torch.inference_mode():
        images = model.encode_image(torch.stack([preprocess(p) for p in PICTURES])).numpy()
        texts = model.encode_text(open_clip.get_tokenizer(name)(TEXTS)).numpy()
    encoder = OpenClipEncoder(OpenClipSettings(model=name), {"model": open_clip_folder})
    np.testing.assert_allclose(encoder.encode(PICTURES, "image"), normalise(images), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS, "text"), normalise(texts), atol=1e-5)


def test_text_pooling_leaves_padding_out(bert_folder: Path) -> None:
    settings = TransformersSettings(model=str(bert_folder), modalities=["text"])
    encoder = TransformersEncoder(settings, {"model": bert_folder})
    alone = encoder.encode(["cat"], "text")
    padded = encoder.encode(["cat", "a dog on the red house"], "text")
    np.testing.assert_allclose(alone[0], padded[0], atol=1e-5)


def test_texts_of_about_one_length_share_a_batch(
    bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TransformersSettings(model=str(bert_folder), modalities=["text"], batch_size=4)
    encoder = TransformersEncoder(settings, {"model": bert_folder})
    texts = ["red " * (20 if number % 4 == 0 else 2) + TEXTS[number % 5] for number in range(16)]
    alone = np.concatenate([encoder.encode([text], "text") for text in texts])
    padded: list[tuple[int, int]] = []
    stack = encoder._stack

    def watched(*arguments: Any) -> Any:
        stacked = stack(*arguments)
        mask = stacked["attention_mask"]
        padded.append((int(mask.numel()), int(mask.sum())))
        return stacked

    monkeypatch.setattr(encoder, "_stack", watched)
    np.testing.assert_allclose(encoder.encode(iter(texts), "text"), alone, atol=1e-5)
    assert len(padded) == 4
    # As they come, each batch would hold a long one, and be filled up to it.
    assert sum(places for places, _ in padded) < 1.3 * sum(tokens for _, tokens in padded)


def test_a_modality_that_the_model_lacks_is_refused(bert_folder: Path) -> None:
    settings = TransformersSettings(model=str(bert_folder), modalities=["text"])
    with pytest.raises(ValueError, match="does not encode image"):
        TransformersEncoder(settings, {"model": bert_folder}).encode(PICTURES, "image")


def test_a_folder_without_safetensors_is_refused(open_clip_folder: Path, tmp_path: Path) -> None:
    config = (open_clip_folder / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(config)
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match=r"no \.safetensors weights"):
        OpenClipEncoder(OpenClipSettings(model=str(tmp_path)), {"model": tmp_path}).load()


def test_architecture_and_tag_name_a_hub_repository() -> None:
    settings = OpenClipSettings(model="ViT-B-32", pretrained="laion2b_s34b_b79k", revision="abc")
    assert settings.models() == {"model": ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "abc")}
    assert OpenClipSettings(model="local-dir:/m").models() == {"model": ("/m", None)}
    with pytest.raises(ValueError, match="'nope' is no tag of 'ViT-B-32'"):
        OpenClipSettings(model="ViT-B-32", pretrained="nope").models()
    with pytest.raises(ValueError, match="needed for the architecture 'ViT-B-32'"):
        OpenClipSettings(model="ViT-B-32").models()


def test_a_pair_shares_no_space(vit_folder: Path, bert_folder: Path) -> None:
    settings = PairSettings(
        image={"kind": "transformers", "model": str(vit_folder), "modalities": ["image"]},
        text={"kind": "transformers", "model": str(bert_folder), "modalities": ["text"]},
    )
    pair = PairEncoder(settings, {"image": vit_folder, "text": bert_folder})
    assert not pair.shared_space
    assert (pair.dimension("image"), pair.dimension("text")) == (12, 28)


def test_out_of_memory_halves_the_batch(open_clip_folder: Path) -> None:
    encoder = OpenClipEncoder(
        OpenClipSettings(model=str(open_clip_folder), batch_size=5), {"model": open_clip_folder}
    )
    expected = encoder.encode(PICTURES, "image")
    forward = encoder._forward

    def short_of_memory(stacked, modality):
        if len(stacked) > 2:
            raise torch.OutOfMemoryError("no room")
        return forward(stacked, modality)

    encoder._forward = short_of_memory
    np.testing.assert_allclose(encoder.encode(PICTURES, "image"), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(900, 3), (4000, 1), (1, 20_000), (30_000, 2)])
def test_every_encoder_bounds_its_memory_on_a_thin_picture(encoder, size: tuple[int, int]) -> None:
    thin = Image.new("RGB", size, "red")
    encoder.load()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = encoder.encode([PICTURES[0], thin, PICTURES[1]], "image")
    # Scaled by the shorter edge to these encoders' 32 pixels, the longest would take 2 GB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[[0, 2]], encoder.encode(PICTURES[:2], "image"), atol=1e-5)


def test_a_siglip_config_may_leave_out_defaults(tmp_path: Path) -> None:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    sizes = {"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 16}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    torch.manual_seed(4)
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(tmp_path)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    # As google's own configs: what has its default value is not there.
    short = {"model_type": "siglip", "text_config": text, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(short))
    encoder = TransformersEncoder(TransformersSettings(model=str(tmp_path)), {"model": tmp_path})
    assert (encoder.dimension("image"), encoder.dimension("text")) == (768, 768)
    assert encoder.encode(PICTURES, "image").shape == (5, 768)
    assert encoder.encode(TEXTS, "text").shape == (5, 768)
