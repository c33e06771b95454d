"""A pipeline's VAE, in a precision that holds and one picture at a time.

SDXL's own VAE overflows in half precision: its images come out black or NaN. It is therefore kept in
float32 where its config says so, and any other that overflows is upcast when that is seen. What a
pipeline asks of its VAE goes through here, whatever the family: no shortage of memory in decoding
reaches the pipeline, where it would throw away what was denoised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from generators.device import is_out_of_memory, release_memory

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# A decoder in float32 takes gigabytes a megapixel: one image of 1024 x 1024 at once, or as many
# smaller ones as have no more pixels.
DECODED_PIXELS = 1024 * 1024


def _upcast(vae: Any) -> None:
    """To float32; diffusers' own `to` warns of modules that this can't hurt."""
    import torch

    torch.nn.Module.to(vae, torch.float32)


def _certain(latents: torch.Tensor) -> Any:
    """What an encoder says that is sure of its latents."""
    import torch
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from diffusers.models.modeling_outputs import AutoencoderKLOutput

    # The logarithm of a variance, the least that diffusers takes.
    spread = torch.full_like(latents, -30.0)
    moments = torch.cat([latents, spread], dim=1)
    return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments))


class Vae:
    """Stands between a pipeline and its VAE, for as long as the pipeline lives.

    Parameters
    ----------
    vae : diffusers.ModelMixin
        Such as an ``AutoencoderKL``. Its ``encode`` and ``decode`` are replaced; it is upcast in
        place where it has to be.
    scale_factor : int
        Pixels to a latent, per side.

    Attributes
    ----------
    without_room : set of int
        Pictures of the last call, by place, that did not fit into memory even alone and in tiles;
        the pipeline got NaN for them.
    """

    def __init__(self, vae: Any, scale_factor: int) -> None:
        import torch

        self.vae = vae
        self.scale_factor = scale_factor
        self.without_room: set[int] = set()
        self._encode = vae.encode
        self._decode: Callable[..., Any] = vae.decode
        if getattr(vae.config, "force_upcast", False) and vae.dtype == torch.float16:
            _upcast(vae)
        vae.encode, vae.decode = self.encode, self.decode

    def encode(self, pixels: torch.Tensor, *rest: Any, **named: Any) -> Any:
        """What the VAE says of pixels [n, 3, height, width], in the precision that they came in.

        Latents that a pipeline was given stay what they are: SDXL's know those of four channels
        alone, and ask for any others to be encoded.
        """
        import torch

        channels = getattr(self.vae.config, "latent_channels", 3)
        if pixels.shape[1] == channels != 3:
            return _certain(pixels / self.vae.config.scaling_factor)
        encoded = self._encode(pixels.to(self.vae.dtype), *rest, **named)
        distribution = getattr(encoded, "latent_dist", None)
        if distribution is None:
            return encoded
        if not torch.isfinite(distribution.parameters).all():
            self._upcast()
            distribution = self._encode(pixels.to(self.vae.dtype), *rest, **named).latent_dist
        encoded.latent_dist = type(distribution)(distribution.parameters.to(pixels.dtype))
        return encoded

    def posterior(self, images: Sequence[Image.Image]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Mean and deviation of each image's latents, each [1, channels, height, width], float32.

        Parameters
        ----------
        images : sequence of RGB images
            Sides are multiples of ``scale_factor``.
        """
        import torch

        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        for image in images:
            pixels = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32).copy())
            pixels = (pixels / 127.5 - 1.0).permute(2, 0, 1)[None].to(self.vae.device)
            with torch.no_grad():
                distribution = self.encode(pixels).latent_dist
            found.append((distribution.mean, distribution.std))
        return found

    def sample(
        self, posterior: tuple[torch.Tensor, torch.Tensor], generator: torch.Generator
    ) -> torch.Tensor:
        """Latents drawn from a posterior, scaled as SDXL's UNet wants them, [1, channels, h, w]."""
        import torch

        mean, deviation = posterior
        noise = torch.randn(mean.shape, generator=generator, dtype=torch.float32)
        latents, factor = mean + deviation * noise.to(mean.device), self.vae.config.scaling_factor
        moments = [getattr(self.vae.config, f"latents_{name}", None) for name in ("mean", "std")]
        if None in moments:
            return latents * factor
        of_mean, of_std = (torch.tensor(m, device=mean.device).view(1, -1, 1, 1) for m in moments)
        return (latents - of_mean) * factor / of_std

    def decode(self, latents: torch.Tensor, return_dict: bool = True, **named: Any) -> Any:
        """Pixels of latents [n, channels, ..., height, width], float32; NaN where there are none.

        Out of memory, half as many are decoded at once; a picture that does not fit alone is
        decoded in tiles of half its side, and noted in `without_room` where it still does not.
        """
        import torch
        from diffusers.models.autoencoders.vae import DecoderOutput

        # One for each picture, which no VAE draws from while it decodes.
        named.pop("generator", None)
        self.without_room = set()
        area = latents.shape[-1] * latents.shape[-2] * self.scale_factor**2
        at_once = max(1, DECODED_PIXELS // area)
        parts: list[torch.Tensor | None] = []
        while len(parts) < len(latents):
            part = latents[len(parts) : len(parts) + at_once]
            decoded = self._attempt(part, named)
            if decoded is None and len(part) > 1:
                at_once = len(part) // 2
                continue
            if decoded is None:
                decoded = self._in_tiles(part, named)
            if decoded is None:
                self.without_room.add(len(parts))
            parts += [None] if decoded is None else list(decoded)
        shape = next((one.shape for one in parts if one is not None), None)
        if shape is None:
            sides = (side * self.scale_factor for side in latents.shape[-2:])
            shape = torch.Size((3, *latents.shape[2:-2], *sides))
        blank = torch.full(shape, torch.nan, device=latents.device)
        pixels = torch.stack([blank if one is None else one for one in parts])
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)

    def _attempt(self, latents: torch.Tensor, named: dict[str, Any]) -> torch.Tensor | None:
        """Pixels of a few latents, or None when memory ran out.

        The error is dropped before the memory is released, for it holds the tensors.
        """
        try:
            return self._decoded(latents, named)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        release_memory()
        return None

    def _decoded(self, latents: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
        import torch

        def pixels() -> torch.Tensor:
            with torch.no_grad():
                given = latents.to(self.vae.dtype)
                decoded: torch.Tensor = self._decode(given, return_dict=False, **named)[0]
            return decoded.float()

        decoded = pixels()
        sound = torch.isfinite(latents).flatten(1).all(dim=1)
        # Latents that are not finite say nothing of the decoder.
        if self.vae.dtype != torch.float32 and not torch.isfinite(decoded[sound]).all():
            self._upcast()
            decoded = pixels()
        decoded[~sound] = torch.nan
        return decoded

    def _in_tiles(self, latents: torch.Tensor, named: dict[str, Any]) -> torch.Tensor | None:
        """As `_attempt`, in overlapping tiles of half the longer side; None where there are none."""
        vae, names = self.vae, ("tile_latent_min_size", "tile_sample_min_size", "use_tiling")
        if not all(hasattr(vae, name) for name in names):
            return None
        before = [getattr(vae, name) for name in names]
        side = max(1, max(latents.shape[-2:]) // 2)
        logger.warning("out of memory with a single image to decode; it is decoded in tiles")
        try:
            for name, value in zip(names, (side, side * self.scale_factor, True), strict=True):
                setattr(vae, name, value)
            return self._attempt(latents, named)
        finally:
            for name, value in zip(names, before, strict=True):
                setattr(vae, name, value)

    def _upcast(self) -> None:
        import torch

        if self.vae.dtype != torch.float32:
            logger.warning("the VAE overflows in %s; it goes on in float32", self.vae.dtype)
            _upcast(self.vae)

    def tile_above(self, pixels: int) -> None:
        """Decode and encode in tiles from this many pixels a picture on, where the VAE can."""
        if pixels > DECODED_PIXELS and hasattr(self.vae, "enable_tiling"):
            self.vae.enable_tiling()


def images_of(pixels: torch.Tensor) -> list[Image.Image | None]:
    """Images of pixels [n, 3, height, width] in 0..1; None where they are not finite."""
    import torch

    return [
        Image.fromarray((one.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())
        if torch.isfinite(one).all()
        else None
        for one in pixels.float()
    ]
