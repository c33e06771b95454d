"""To and from the latents of a VAE, in a precision that holds.

SDXL's own VAE overflows in half precision: its images come out black or NaN. It is therefore kept in
float32 where its config says so, and any other that overflows is upcast when that is seen.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# A decoder in float32 needs several GB a megapixel: two images of 1024 x 1024 at once.
DECODED_PIXELS = 2 * 1024 * 1024


class LatentCodec:
    """Images to latents and back through an ``AutoencoderKL``.

    Parameters
    ----------
    vae : diffusers.AutoencoderKL
        Upcast in place where it has to be.
    scale_factor : int
        Pixels to a latent, per side.
    """

    def __init__(self, vae: Any, scale_factor: int) -> None:
        import torch

        self.vae = vae
        self.scale_factor = scale_factor
        if vae.config.force_upcast and vae.dtype == torch.float16:
            self.vae.to(torch.float32)

    def posterior(self, images: Sequence[Image.Image]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Mean and deviation of each image's latents, each [1, channels, height, width], float32.

        Parameters
        ----------
        images : sequence of RGB images
            All of one size, a multiple of ``scale_factor``.
        """
        import torch

        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        for image in images:
            pixels = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32).copy())
            pixels = (pixels / 127.5 - 1.0).permute(2, 0, 1)[None]
            distribution = self._encode(pixels)
            if not torch.isfinite(distribution.mean).all():
                self._upcast()
                distribution = self._encode(pixels)
            found.append((distribution.mean.float(), distribution.std.float()))
        return found

    def sample(
        self, posterior: tuple[torch.Tensor, torch.Tensor], generator: torch.Generator
    ) -> torch.Tensor:
        """Latents drawn from a posterior, scaled as the UNet wants them, [1, channels, h, w]."""
        import torch

        mean, deviation = posterior
        noise = torch.randn(mean.shape, generator=generator, dtype=torch.float32)
        return self._scaled(mean + deviation * noise.to(mean.device))

    def decode(self, latents: torch.Tensor) -> list[Image.Image | None]:
        """Images of latents [n, channels, height, width]; None where they are not finite."""
        import torch

        sound = torch.isfinite(latents).flatten(1).all(dim=1).tolist()
        pixels = latents.shape[-1] * latents.shape[-2] * self.scale_factor**2
        chunk = max(1, DECODED_PIXELS // pixels)
        images: list[Image.Image | None] = []
        for start in range(0, latents.shape[0], chunk):
            part = latents[start : start + chunk]
            decoded = self._decode(part)
            if any(sound[start : start + chunk]) and not self._finite_where(decoded, part):
                self._upcast()
                decoded = self._decode(part)
            images += [_to_image(one) if torch.isfinite(one).all() else None for one in decoded]
        return [image if fine else None for image, fine in zip(images, sound, strict=True)]

    def _encode(self, pixels: torch.Tensor) -> Any:
        import torch

        with torch.no_grad():
            return self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        import torch

        unscaled = self._unscaled(latents.float()).to(self.vae.dtype)
        with torch.no_grad():
            return self.vae.decode(unscaled, return_dict=False)[0].float()

    @staticmethod
    def _finite_where(decoded: torch.Tensor, latents: torch.Tensor) -> bool:
        """Whether every image whose latents are finite is finite too."""
        import torch

        sound = torch.isfinite(latents).flatten(1).all(dim=1)
        return bool(torch.isfinite(decoded[sound]).all())

    def _upcast(self) -> None:
        import torch

        if self.vae.dtype != torch.float32:
            logger.warning("the VAE overflows in %s; it goes on in float32", self.vae.dtype)
            self.vae.to(torch.float32)

    def _moments(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Mean and deviation of the latents a channel, for the checkpoints that have them."""
        import torch

        config = self.vae.config
        mean, deviation = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
        if mean is None or deviation is None:
            return None
        return (
            torch.tensor(mean, device=like.device).view(1, -1, 1, 1),
            torch.tensor(deviation, device=like.device).view(1, -1, 1, 1),
        )

    def _scaled(self, latents: torch.Tensor) -> torch.Tensor:
        factor = self.vae.config.scaling_factor
        moments = self._moments(latents)
        if moments is None:
            return latents * factor
        mean, deviation = moments
        return (latents - mean) * factor / deviation

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        factor = self.vae.config.scaling_factor
        moments = self._moments(latents)
        if moments is None:
            return latents / factor
        mean, deviation = moments
        return latents * deviation / factor + mean


def _to_image(decoded: torch.Tensor) -> Image.Image:
    """An image of a tensor [3, height, width] in -1..1."""
    pixels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy().astype(np.uint8))
