"""The tiny autoencoder `taef2` as the VAE of a diffusers pipeline: 32 channels, 8 times smaller.

Its weights are the plain sequences `taef2_encoder.safetensors` and `taef2_decoder.safetensors`. diffusers'
`AutoencoderTiny` has no place for their pooled paths, and gives no distribution, from which a pipeline
that starts at a picture draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config

# diffusers finds how a part is loaded by the bases that stand beside its class.
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

LATENT_CHANNELS, WIDTH = 32, 64
# The logarithm of the variance of latents: a mean alone, as good as certain.
CERTAIN = -30.0


class Block(nn.Module):
    """Three convolutions beside the identity, after a gated look at each place where `pooled`."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        layers = [_three(WIDTH), nn.ReLU(), _three(WIDTH), nn.ReLU(), _three(WIDTH)]
        self.conv = nn.Sequential(*layers)
        self.pool: nn.Module | None = None
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False),
                nn.GroupNorm(4, 4 * WIDTH),
                nn.ReLU(),
                nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _Bounded(nn.Module):
    """Latents within the bounds that the decoder learned with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x / 3) * 3


def _three(channels: int, out: int = WIDTH, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1, **more)


def _smaller() -> nn.Conv2d:
    return _three(WIDTH, stride=2, bias=False)


def _larger() -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), _three(WIDTH, bias=False)]


class TinyAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Pictures in -1..1 [n, 3, h, w] to latents [n, 32, h / 8, w / 8] and back.

    Parameters
    ----------
    channel_means, channel_deviations : sequence of float, optional
        By which latents are standardised here: diffusers' pipelines know such moments of four channels
        alone.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = LATENT_CHANNELS,
        block_out_channels: Sequence[int] = (WIDTH,) * 4,
        scaling_factor: float = 1.0,
        channel_means: Sequence[float] = (0.0,) * LATENT_CHANNELS,
        channel_deviations: Sequence[float] = (1.0,) * LATENT_CHANNELS,
        force_upcast: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(_three(3), Block(False)),
            *(_smaller(), *(Block(False) for _ in range(3))),
            *(_smaller(), *(Block(False) for _ in range(3))),
            *(_smaller(), *(Block(True) for _ in range(3))),
            _three(WIDTH, latent_channels),
        )
        self.decoder = nn.Sequential(
            *(_Bounded(), _three(latent_channels), nn.ReLU()),
            *(*(Block(True) for _ in range(3)), *_larger()),
            *(*(Block(False) for _ in range(3)), *_larger()),
            *(*(Block(False) for _ in range(3)), *_larger()),
            *(Block(False), _three(WIDTH, 3)),
        )

    def encode(self, x: torch.Tensor, return_dict: bool = True) -> Any:
        """The distribution of latents of pictures in -1..1; it has hardly any spread."""
        middle, deviation = self._moments(x)
        mean = (self.encoder((x + 1) / 2) - middle) / deviation
        spread = torch.full_like(mean, CERTAIN)
        found = DiagonalGaussianDistribution(torch.cat([mean, spread], dim=1))
        return AutoencoderKLOutput(latent_dist=found) if return_dict else (found,)

    def decode(self, z: torch.Tensor, return_dict: bool = True, generator: Any = None) -> Any:
        """Pictures in -1..1 of latents."""
        middle, deviation = self._moments(z)
        pixels = self.decoder(z * deviation + middle) * 2 - 1
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)

    def _moments(self, like: torch.Tensor) -> list[torch.Tensor]:
        return [
            torch.tensor(moment, device=like.device, dtype=like.dtype)[:, None, None]
            for moment in (self.config.channel_means, self.config.channel_deviations)
        ]


def open_autoencoder(folder: Path) -> TinyAutoencoder:
    """The published weights, in float32.

    Raises
    ------
    ValueError
        The folder holds others.
    """
    from safetensors.torch import load_file

    model = TinyAutoencoder()
    for name in ("encoder", "decoder"):
        file = folder / f"taef2_{name}.safetensors"
        try:
            getattr(model, name).load_state_dict(load_file(file))
        except (RuntimeError, OSError) as error:
            told = " ".join(str(error).split())[:200]
            raise ValueError(f"{file} holds no such autoencoder: {told}") from None
    return model.eval().requires_grad_(False)
