"""Sizes that are drawn: what a model learned on, in the shape of a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generators.base import Example, ImageRequest
from generators.frames import LEARNED, Frames
from tests.generators.sdxl_requests import generator


def pipe(latents: int = 128, **parts: Any) -> Any:
    config = SimpleNamespace(sample_size=latents)
    return SimpleNamespace(unet=SimpleNamespace(config=config), vae_scale_factor=8, **parts)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((500, 375), (1152, 896)),
        ((375, 500), (896, 1152)),
        ((640, 480), (1152, 896)),
        ((1920, 1080), (1344, 768)),
        ((500, 333), (1216, 832)),
        ((700, 700), (1024, 1024)),
        ((5000, 100), (2048, 512)),
    ],
)
def test_sdxls_sizes_are_those_of_its_paper_and_the_nearest_in_shape(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    frames = Frames(pipe(), "auto")
    assert frames.of_shape(shape) == size
    assert frames.size == (1024, 1024)
    assert frames.most_pixels == max(w * h for w, h in LEARNED)


def test_sizes_of_smaller_models_have_as_many_pixels_as_they_learned_on() -> None:
    frames = Frames(pipe(64), "auto")
    width, height = frames.of_shape((400, 300))
    assert (width % 8, height % 8) == (0, 0)
    assert 0.95 < width * height / 512**2 < 1.05
    assert width / height == pytest.approx(4 / 3, rel=0.05)


def test_a_fixed_size_is_that_of_every_shape() -> None:
    assert Frames(pipe(), (1152, 896)).of_shape((100, 900)) == (1152, 896)


def ringed(size: tuple[int, int]) -> Image.Image:
    """A picture without white whose edges are of four colours."""
    width, height = size
    image = Image.new("RGB", size, (90, 90, 90))
    image.paste((200, 0, 0), (0, 0, width // 4, height))
    image.paste((0, 0, 200), (width - width // 4, 0, width, height))
    image.paste((0, 160, 0), (width // 4, 0, width - width // 4, height // 4))
    return image


@pytest.mark.parametrize("shape", [(400, 300), (300, 400), (640, 360), (50, 900)])
@pytest.mark.parametrize("size", ["auto", 64])
def test_the_start_picture_fills_the_frame_without_bars(
    shape: tuple[int, int], size: Any, sdxl: Path
) -> None:
    made = generator(sdxl, grounding="img2img", size=size, steps=2)
    made.load()
    starts: list[np.ndarray] = []
    made._pipe.vae.encoder.register_forward_pre_hook(
        lambda module, args: starts.append(args[0][0].numpy())
    )
    pairs = (Example("pair", "a hat", ringed(shape)),)
    (answer,) = made.generate([ImageRequest("row", "a red hat", pairs, (1,))])
    (start,) = starts
    assert start.min(axis=0).max() < 0.9, "white where the picture has none"
    drawn = answer.candidates[0].image
    assert drawn.size == start.shape[:0:-1]
    if size == "auto" and max(shape) / min(shape) < 2:
        assert drawn.width / drawn.height == pytest.approx(shape[0] / shape[1], rel=0.15)
        # All four edges are still there.
        assert start[0, drawn.height // 2, 0] > 0.4 and start[2, drawn.height // 2, -1] > 0.4
        assert start[1, 0, drawn.width // 2] > 0.1


def test_rows_of_several_shapes_are_drawn_as_each_alone(
    sdxl: Path, examples: Callable[..., Any]
) -> None:
    shapes = [(400, 300), (300, 400), (400, 300), (300, 300)]
    requests = [
        ImageRequest(f"row-{n}", "a red hat", (Example("p", "a hat", ringed(shape)),), (n, n + 9))
        for n, shape in enumerate(shapes)
    ]
    made = generator(sdxl, grounding="img2img", batch_size=3)
    together = made.generate(requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = made.generate([request])
        for one, other in zip(answer.candidates, alone.candidates, strict=True):
            assert one.image.size == other.image.size
            assert np.allclose(np.asarray(one.image, int), np.asarray(other.image, int), atol=2)


def test_a_result_of_another_shape_is_cut_and_not_distorted(
    sdxl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn has the result's shape where the size is open, and is cut where it is fixed."""
    for size, drawn in (("auto", (96, 48)), (64, (64, 64))):
        made = generator(sdxl, steps=1, size=size, output_size=(60, 30))
        made.load()
        seen: list[torch.Size] = []
        made._pipe.unet.register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(args[0].shape), with_kwargs=True
        )
        (answer,) = made.generate([ImageRequest("row", "the sun", (), (1,))])
        assert answer.candidates[0].image.size == (60, 30)
        assert (seen[0][-1] * 8, seen[0][-2] * 8) == drawn
