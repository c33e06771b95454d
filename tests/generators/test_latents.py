"""A VAE whose half precision overflows, as SDXL's own does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generators.latents import LatentCodec


@pytest.fixture
def overflowing(sdxl: Path) -> Callable[..., Any]:
    """A VAE that is sound in float32, and passes 65504 on its way in float16."""
    from diffusers import AutoencoderKL

    def make(dtype: torch.dtype, force_upcast: bool) -> Any:
        vae = AutoencoderKL.from_pretrained(sdxl, subfolder="vae")
        vae.register_to_config(force_upcast=force_upcast)
        with torch.no_grad():
            vae.decoder.conv_in.weight.mul_(3e5)
            vae.encoder.conv_in.weight.mul_(3e5)
        return vae.to(dtype)

    return make


LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("force_upcast", [True, False])
def test_a_vae_that_overflows_in_half_precision_decodes_as_in_full(
    force_upcast: bool, overflowing: Callable[..., Any]
) -> None:
    reference = LatentCodec(overflowing(torch.float32, False), 8).decode(LATENTS)
    raw = overflowing(torch.float16, force_upcast)
    assert not torch.isfinite(raw.decode(LATENTS.half(), return_dict=False)[0]).all()
    codec = LatentCodec(raw, 8)
    # Where the config says that it overflows, nothing is decoded twice to find out.
    assert (raw.dtype == torch.float32) == force_upcast
    images = codec.decode(LATENTS.half())
    for image, expected in zip(images, reference, strict=True):
        difference = np.asarray(image, int) - np.asarray(expected, int)
        assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("force_upcast", [True, False])
def test_a_vae_that_overflows_in_half_precision_encodes_as_in_full(
    force_upcast: bool, overflowing: Callable[..., Any], pictures: Callable[..., Image.Image]
) -> None:
    image = pictures(3, (64, 64))
    ((expected, _),) = LatentCodec(overflowing(torch.float32, False), 8).posterior([image])
    ((mean, _),) = LatentCodec(overflowing(torch.float16, force_upcast), 8).posterior([image])
    torch.testing.assert_close(mean, expected, atol=0.05, rtol=0.05)


def test_latents_that_are_not_finite_give_no_image_and_no_upcast(sdxl: Path) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(sdxl, subfolder="vae")
    latents = LATENTS.clone()
    latents[1, 0, 0, 0] = torch.inf
    first, second = LatentCodec(vae, 8).decode(latents)
    assert first is not None
    assert second is None


def test_moments_of_the_latents_are_undone_where_a_checkpoint_has_them(sdxl: Path) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(sdxl, subfolder="vae")
    vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.5, 2.0, 1.0, 1.5])
    codec = LatentCodec(vae, 8)
    scaled = codec._scaled(LATENTS)
    mean = torch.tensor([0.1, -0.2, 0.3, 0.0])
    deviation = torch.tensor([0.5, 2.0, 1.0, 1.5])
    by_hand = torch.stack(
        [
            (LATENTS[:, channel] - mean[channel]) * vae.config.scaling_factor / deviation[channel]
            for channel in range(4)
        ],
        dim=1,
    )
    torch.testing.assert_close(scaled, by_hand)
    torch.testing.assert_close(codec._unscaled(scaled), LATENTS)


def test_many_images_are_decoded_in_parts_with_the_same_result(
    sdxl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import AutoencoderKL

    codec = LatentCodec(AutoencoderKL.from_pretrained(sdxl, subfolder="vae"), 8)
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    whole = codec.decode(latents)
    monkeypatch.setattr("generators.latents.DECODED_PIXELS", 2 * 64 * 64)
    parts = codec.decode(latents)
    assert len(parts) == 5
    for one, other in zip(whole, parts, strict=True):
        assert np.allclose(np.asarray(one, int), np.asarray(other, int), atol=1)
