"""What a pipeline asks of its VAE: in a precision that holds, one picture at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generators.base import ImageRequest
from generators.device import Peak
from generators.pictures import covering
from generators.vae import Vae, images_of
from tests.generators import tiny_sdxl
from tests.generators.sdxl_requests import alike, generator, requests_for


def own_vae(sdxl: Path) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(sdxl, subfolder="vae")


@pytest.fixture
def overflowing(sdxl: Path) -> Callable[..., Any]:
    """A VAE that is sound in float32, and passes 65504 on its way in float16."""

    def make(dtype: torch.dtype, force_upcast: bool) -> Any:
        vae = own_vae(sdxl)
        vae.register_to_config(force_upcast=force_upcast)
        with torch.no_grad():
            vae.decoder.conv_in.weight.mul_(3e5)
            vae.encoder.conv_in.weight.mul_(3e5)
        return vae.to(dtype)

    return make


LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def decode(vae: Vae, latents: torch.Tensor) -> list[Image.Image | None]:
    return images_of(vae.vae.decode(latents, return_dict=False)[0] / 2 + 0.5)


@pytest.mark.parametrize("force_upcast", [True, False])
def test_a_vae_that_overflows_in_half_precision_decodes_as_in_full(
    force_upcast: bool, overflowing: Callable[..., Any]
) -> None:
    reference = decode(Vae(overflowing(torch.float32, False), 8), LATENTS)
    raw = overflowing(torch.float16, force_upcast)
    assert not torch.isfinite(raw.decode(LATENTS.half(), return_dict=False)[0]).all()
    vae = Vae(raw, 8)
    # Where the config says that it overflows, nothing is decoded twice to find out.
    assert (raw.dtype == torch.float32) == force_upcast
    for image, expected in zip(decode(vae, LATENTS.half()), reference, strict=True):
        difference = np.asarray(image, int) - np.asarray(expected, int)
        assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("force_upcast", [True, False])
def test_a_vae_that_overflows_in_half_precision_encodes_as_in_full(
    force_upcast: bool, overflowing: Callable[..., Any], pictures: Callable[..., Image.Image]
) -> None:
    image = pictures(3, (64, 64))
    ((expected, _),) = Vae(overflowing(torch.float32, False), 8).posterior([image])
    ((mean, _),) = Vae(overflowing(torch.float16, force_upcast), 8).posterior([image])
    torch.testing.assert_close(mean, expected, atol=0.05, rtol=0.05)


def test_latents_that_are_not_finite_give_no_image_and_no_upcast(sdxl: Path) -> None:
    latents = LATENTS.clone()
    latents[1, 0, 0, 0] = torch.inf
    vae = Vae(own_vae(sdxl).to(torch.bfloat16), 8)
    first, second = decode(vae, latents)
    assert first is not None
    assert second is None
    assert vae.without_room == set()
    assert vae.vae.dtype == torch.bfloat16


def test_moments_of_the_latents_count_where_a_checkpoint_has_them(sdxl: Path) -> None:
    raw = own_vae(sdxl)
    raw.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.5, 2.0, 1.0, 1.5])
    zero = torch.zeros(1, 4, 8, 8)
    sampled = Vae(raw, 8).sample((zero + 1.0, zero), torch.Generator())
    mean, deviation = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([0.5, 2.0, 1.0, 1.5])
    by_hand = (1.0 - mean) * raw.config.scaling_factor / deviation
    torch.testing.assert_close(sampled[0, :, 0, 0], by_hand)


def test_large_pictures_are_decoded_one_at_a_time_with_the_same_result(
    sdxl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = Vae(own_vae(sdxl), 8)
    batches: list[int] = []
    vae.vae.decoder.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    together = decode(vae, latents)
    monkeypatch.setattr("generators.vae.DECODED_PIXELS", 64 * 64)
    alone = decode(vae, latents)
    assert batches == [3, 1, 1, 1]
    for one, other in zip(together, alone, strict=True):
        assert np.allclose(np.asarray(one, int), np.asarray(other, int), atol=1)


class Steps:
    """Counts image-steps: through the UNet goes each image twice a step, with and without its text."""

    def __init__(self, unet: Any) -> None:
        self.taken = 0
        unet.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, unet: Any, args: Any, kwargs: Any) -> None:
        self.taken += len(args[0]) // 2


def short(limits: list[int]) -> Callable[..., None]:
    """A hook by which a decoder runs out of memory with more latents in all than the next limit.

    Once the limits are used up the last one holds.
    """

    def hook(decoder: Any, args: Any) -> None:
        room = limits.pop(0) if len(limits) > 1 else limits[0]
        if args[0].shape[0] * args[0].shape[-1] * args[0].shape[-2] > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")

    return hook


def eight(examples: Callable[..., Any]) -> list[ImageRequest]:
    return requests_for(examples, (0, 0, 0))[:2] + [
        ImageRequest("more", "the sun", (), (20, 21, 22, 23))
    ]


@pytest.mark.parametrize(
    ("limits", "in_tiles"),
    [([64], False), ([3 * 64, 4 * 64, 64], False), ([16], True)],
    ids=["one at a time", "at some moments", "not even one"],
)
def test_no_shortage_of_memory_in_decoding_throws_away_what_was_denoised(
    limits: list[int],
    in_tiles: bool,
    sdxl: Path,
    examples: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    requests = eight(examples)
    expected = generator(sdxl, batch_size=8).generate(requests)
    made = generator(sdxl, batch_size=8)
    made.load()
    steps = Steps(made._pipe.unet)
    made._pipe.vae.decoder.register_forward_pre_hook(short(limits))
    answers = made.generate(requests)
    assert steps.taken == 8 * 4
    assert made._runner.limit == 8
    assert ("in tiles" in caplog.text) is in_tiles
    for answer, other in zip(answers, expected, strict=True):
        assert answer.error is None
        for one, two in zip(answer.candidates, other.candidates, strict=True):
            # Tiles are normalised by themselves: alike, not the same.
            assert one.image is not None
            assert in_tiles or alike(one, two.image)


def test_an_image_without_room_to_be_decoded_fails_alone(
    sdxl: Path, examples: Callable[..., Any]
) -> None:
    made = generator(sdxl, batch_size=8)
    made.load()
    steps = Steps(made._pipe.unet)
    turns: list[int] = []

    def third(decoder: Any, args: Any) -> None:
        """All eight, four, two, two, ... of which one is the third."""
        turns.append(len(args[0]))
        if args[0].shape[-1] < 8 or len(args[0]) > 1 or turns.count(1) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")

    made._pipe.vae.decoder.register_forward_pre_hook(third)
    answers = made.generate(eight(examples))
    assert [len(answer.candidates) for answer in answers] == [2, 1, 4]
    assert "out of memory" in (answers[1].error or "")
    assert steps.taken == 8 * 4


def test_a_batch_that_did_not_fit_for_a_moment_is_as_large_again_later(
    sdxl: Path, examples: Callable[..., Any]
) -> None:
    """Halving what failed costs its steps again; without growing back, every later batch is slow."""
    made = generator(sdxl, batch_size=4, steps=1)
    made.load()
    sizes: list[int] = []

    def hook(unet: Any, args: Any, kwargs: Any) -> None:
        sizes.append(len(args[0]) // 2)
        if len(sizes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")

    made._pipe.unet.register_forward_pre_hook(hook, with_kwargs=True)
    made.generate([ImageRequest("row", "the sun", (), tuple(range(24)))])
    assert sizes == [4, *[2] * 8, 4, 4]


def test_memory_is_that_of_the_weights_and_one_pictures_decoding(
    sdxl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum that the README's table gives, on a reduced VAE: more pictures take no more."""
    monkeypatch.setattr("generators.vae.DECODED_PIXELS", 512 * 512)
    vae = Vae(own_vae(sdxl).to(torch.float32), 8)

    def peak(count: int) -> int:
        latents = torch.zeros(count, 4, 64, 64)
        with torch.inference_mode(), Peak(torch.device("cpu")) as measured:
            pixels = vae.vae.decode(latents, return_dict=False)[0]
        return measured.bytes - pixels.numel() * pixels.element_size() if measured.bytes else 0

    peak(1)
    one, six = peak(1), peak(6)
    if not one:
        pytest.skip("the system does not tell a process's peak")
    assert six < 2 * one


def test_a_picture_above_a_megapixel_is_decoded_in_tiles(
    sdxl: Path, monkeypatch: pytest.MonkeyPatch, examples: Callable[..., Any]
) -> None:
    monkeypatch.setattr("generators.vae.DECODED_PIXELS", 64 * 64)
    sides: set[int] = set()

    def largest(size: Any) -> int:
        made = generator(sdxl, steps=1, size=size)
        made.load()
        sides.clear()
        made._pipe.vae.decoder.register_forward_pre_hook(
            lambda _, args: sides.add(max(args[0].shape[-2:]))
        )
        (answer,) = made.generate(requests_for(examples, (0,)))
        assert answer.candidates[0].image.size == (size, size)
        return max(sides)

    assert largest(64) == 8
    assert largest(128) == 8


def test_latents_of_other_than_four_channels_start_from_an_example_too(
    tmp_path: Path, examples: Callable[..., Any]
) -> None:
    wide = tiny_sdxl.sdxl(tmp_path / "wide", channels=6)
    raw = own_vae(wide)
    with torch.no_grad():
        raw.quant_conv.weight[6:], raw.quant_conv.bias[6:] = 0, -30  # sure of its latents
    raw.save_pretrained(wide / "vae")
    painter = generator(wide, grounding="img2img")
    painter.load()
    scheduler, begun = painter._with_picture.scheduler, []
    add_noise = scheduler.add_noise

    def watched(latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        begun.append(latents)
        return add_noise(latents, *rest)

    scheduler.add_noise = watched
    (request,) = requests_for(examples, (1,))
    (answer,) = painter.generate([request])
    assert answer.error is None
    start = covering(request.examples[0].image, (64, 64))
    (posterior,) = Vae(own_vae(wide), 8).posterior([start])
    expected = posterior[0] * raw.config.scaling_factor
    for latents in torch.cat(begun):
        torch.testing.assert_close(latents[None], expected, atol=1e-5, rtol=1e-4)
