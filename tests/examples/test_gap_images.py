"""The recipe's image generator: what it learns from, and that `sdxl` draws with what it wrote."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from examples.recipes.gap.autoencoder import TinyAutoencoder, open_autoencoder
from examples.recipes.gap.eyes import Eyes
from examples.recipes.gap.painter import standardise, token_rows, train_painter
from examples.recipes.gap.photographs import (
    PACKED,
    held_out,
    pack,
    pixels_of,
    read_learned,
    time_left,
    view,
)
from examples.recipes.gap.worlds import write_target
from examples.scenes.training.texts import learn_clip_tokenizer
from generators import IMAGE_GENERATORS
from generators.base import Example, ImageRequest
from generators.vae import Vae
from pipeline.models.components import Component
from tests.examples.test_gap import pair
from tests.quick_parts import picture

PHOTOGRAPHS = 12


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of an autoencoder that knows nothing, as they are published."""
    folder = tmp_path_factory.mktemp("taef2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TinyAutoencoder()
    for name in ("encoder", "decoder"):
        state = {k: v.half() for k, v in getattr(model, name).state_dict().items()}
        save_file(state, folder / f"taef2_{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """Photographs, and a pipeline that learned from them for some steps."""
    folder = tmp_path_factory.mktemp("gap")
    write_target(
        folder / "photographs" / "learned.parquet", [pair(n, "dog") for n in range(PHOTOGRAPHS)]
    )
    train_painter(folder, weights, steps=3, minutes=5, batch=4, views=2, quick=True)
    return folder


def draw(world: Path, *examples: Image.Image, **settings: Any) -> Image.Image:
    """A picture of a text by a run's `sdxl`."""
    values = {
        "kind": "examples.recipes.gap.image_generator:PhotographPainter",
        "model": str(world / "images"),
        "steps": 4,
        "device": "cpu",
        **settings,
    }
    part = Component.choose("image_generator", values, IMAGE_GENERATORS)
    made = part.create(part.resolve(world, offline=True))
    part.load(made)
    shown = tuple(Example(f"e{n}", "a dog", one) for n, one in enumerate(examples))
    (answer,) = made.generate([ImageRequest("row", "A red dog.", shown, (7,))])
    assert answer.candidates, answer
    found = answer.candidates[0].image
    assert isinstance(found, Image.Image), answer
    return found


def test_sdxl_draws_with_what_was_learned_at_its_size(world: Path) -> None:
    assert draw(world).size == (64, 64)


def test_a_picture_begins_at_the_examples(world: Path) -> None:
    drawn = [draw(world, picture(colour, 0), strength=0.5) for colour in ("red", "blue", "red")]
    first, other, again = (np.asarray(one).astype(int) for one in drawn)
    assert (first == again).all() and (first != other).any()


def test_a_finished_training_changes_nothing(world: Path, weights: Path) -> None:
    file = world / "images" / "unet" / "diffusion_pytorch_model.safetensors"
    before = file.read_bytes()
    train_painter(world, weights, steps=3, minutes=5, batch=4, views=1, quick=True)
    assert file.read_bytes() == before


def test_latents_of_a_pipeline_are_standardised_as_those_that_were_learned(weights: Path) -> None:
    vae = open_autoencoder(weights)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 128, 128), np.uint8))
    x = view(pixels, 128, 0, np.random.default_rng(0)) * 2 - 1
    with torch.no_grad():
        latents = vae.encode(x).latent_dist.mean[None]
    mean, deviation = standardise(vae, latents)
    expected = (latents[0] - mean) / deviation
    # As a pipeline starts at a picture.
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    asked = Vae(vae, 8)
    (posterior,) = asked.posterior([image])
    got = asked.sample(posterior, torch.Generator().manual_seed(0))
    assert got.shape == (1, 32, 16, 16) and torch.allclose(got[0], expected[0], atol=1e-3)
    with torch.no_grad():
        back = vae.decode(got).sample
        plain = open_autoencoder(weights).decode(latents[0, :1]).sample
    assert torch.allclose(back, plain, atol=1e-3)


def test_weights_of_something_else_are_told_in_a_line(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "taef2_encoder.safetensors")
    with pytest.raises(ValueError, match="taef2_encoder.safetensors holds no such autoencoder"):
        open_autoencoder(tmp_path)
    with pytest.raises(ValueError, match="holds no such autoencoder"):
        open_autoencoder(tmp_path / "nowhere")


def test_packed_photographs_are_those_of_the_parquet_file(world: Path, tmp_path: Path) -> None:
    pictures, captions = read_learned(world)
    size = pack(world, tmp_path, 90)
    assert size == (tmp_path / PACKED).stat().st_size
    packed, again = read_learned(tmp_path)
    assert again == captions and len(packed) == PHOTOGRAPHS
    difference = pixels_of(packed).float() - pixels_of(pictures).float()
    # Noise of every pixel is what WebP keeps least of.
    assert difference.mean(dim=(1, 2, 3)).abs().max() < 3
    assert Image.open(io.BytesIO(packed[0])).format == "WEBP"


def test_the_first_view_is_what_the_eyes_see_in_a_run() -> None:
    eyes = Eyes(torch.nn.Identity(), 64)
    image = picture("red", 3).resize((160, 160))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    seen = view(pixels_of([buffer.getvalue()]), 64, 0, np.random.default_rng(0))
    assert np.abs(eyes.standardised(seen)[0].numpy() - eyes.pixels(image)).max() < 0.05


def test_views_are_mirrored_and_cropped() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 40, 40), np.uint8))
    rng = np.random.default_rng(0)
    whole, mirrored, *others = (view(pixels, 32, number, rng) for number in range(5))
    assert torch.allclose(whole.flip(-1), mirrored, atol=1e-5)
    for other in others:
        assert other.shape == (2, 3, 32, 32) and other.min() >= 0 and other.max() <= 1
        assert (other - whole).abs().mean() > 0.02


def test_every_caption_has_its_tokens_and_its_photograph(tmp_path: Path) -> None:
    captions = [["A dog .", "Two dogs run ."], ["A rock ."]]
    tokenizer = learn_clip_tokenizer(sum(captions, []), tmp_path, 700, 64)
    tokens, starts = token_rows(tokenizer, captions)
    assert tokens.shape == (3, 64) and starts.tolist() == [0, 2, 3]
    assert tokenizer.decode(tokens[2], skip_special_tokens=True).split() == ["a", "rock", "."]


def test_some_photographs_are_kept_out_and_time_bounds_what_is_prepared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [held_out(count) for count in (5, 40, 4045)] == [1, 4, 100]
    monkeypatch.setattr("time.monotonic", lambda: 160.0)
    assert time_left(3.0, 100.0) == 2.0
    assert time_left(0.5, 100.0) == pytest.approx(1 / 60)
