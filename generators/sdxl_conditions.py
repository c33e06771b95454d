"""What an SDXL is conditioned on: texts and example pictures, each encoded once for a row's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from generators.base import ImageRequest
from generators.diffusion import Job
from generators.pictures import bounded, covering
from generators.sdxl_settings import SdxlSettings
from generators.vae import Vae

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class _EncodedText:
    """What the text encoders say of one prompt: [tokens, width] and [pooled width]."""

    tokens: torch.Tensor
    pooled: torch.Tensor


class Conditions:
    """The conditions of the images of some requests.

    What was encoded is kept while the rows of a batch reach into the next one.

    Parameters
    ----------
    settings : SdxlSettings
    pipe : diffusers.StableDiffusionXLPipeline
    vae : Vae
    requests : sequence of ImageRequest
    """

    def __init__(
        self,
        settings: SdxlSettings,
        pipe: Any,
        vae: Vae,
        requests: Sequence[ImageRequest],
    ) -> None:
        self.settings = settings
        self._pipe = pipe
        self._vae = vae
        self._requests = requests
        self._texts: dict[int, _EncodedText] = {}
        self._posteriors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._prints: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._negative: _EncodedText | None = None

    @property
    def _guided(self) -> bool:
        """Whether the UNet runs twice, with and without the text."""
        return (
            self.settings.guidance_scale > 1 and self._pipe.unet.config.time_cond_proj_dim is None
        )

    def texts(self, jobs: list[Job]) -> dict[str, Any]:
        """The encoded texts of a batch; each text is encoded once for its n images."""
        import torch

        rows = list(dict.fromkeys(job.row for job in jobs))
        prompts = {job.row: job.prompt.text for job in jobs}
        guided = self._guided
        new = [row for row in rows if row not in self._texts]
        self._texts = {row: self._texts[row] for row in rows if row in self._texts}
        if new:
            tokens, negative, pooled, negative_pooled = self._pipe.encode_prompt(
                prompt=[prompts[row] for row in new],
                num_images_per_prompt=1,
                do_classifier_free_guidance=guided,
                negative_prompt=self.settings.negative_prompt,
            )
            for place, row in enumerate(new):
                self._texts[row] = _EncodedText(tokens[place], pooled[place])
            if guided:
                self._negative = _EncodedText(negative[0], negative_pooled[0])
        texts = [self._texts[job.row] for job in jobs]
        conditions = {
            "prompt_embeds": torch.stack([text.tokens for text in texts]),
            "pooled_prompt_embeds": torch.stack([text.pooled for text in texts]),
        }
        if self._negative is not None:
            count = len(jobs)
            conditions["negative_prompt_embeds"] = self._negative.tokens.expand(count, -1, -1)
            conditions["negative_pooled_prompt_embeds"] = self._negative.pooled.expand(count, -1)
        return conditions

    def start(self, jobs: list[Job], generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Latents of the examples, [n, channels, h, w]; each is encoded once for its n images."""
        import torch

        shown = {job.row: job for job in jobs}
        self._posteriors = {row: self._posteriors[row] for row in shown if row in self._posteriors}
        for row, job in shown.items():
            if row not in self._posteriors:
                (first, *_) = self._example_images(row, job.prompt.shown)
                start = covering(first, job.size, self.settings.background)
                (self._posteriors[row],) = self._vae.posterior([start])
        drawn = [
            self._vae.sample(self._posteriors[job.row], generator)
            for job, generator in zip(jobs, generators, strict=True)
        ]
        return torch.cat(drawn).to(self._pipe.unet.dtype)

    def image_prompt(self, jobs: list[Job]) -> torch.Tensor:
        """The adapter's image embeddings, [n, images, ...], the unguided half first.

        Rows without an example are a batch of their own: the adapter's weight is one for a batch, and
        only 0 leaves no trace of it.
        """
        import torch

        pipe, count = self._pipe, jobs[0].images
        pipe.set_ip_adapter_scale(self.settings.ip_adapter.scale if count else 0.0)
        shown = {job.row: job.prompt.shown for job in jobs}
        new = [row for row in shown if row not in self._prints]
        self._prints = {row: self._prints[row] for row in shown if row in self._prints}
        (layer,) = pipe.unet.encoder_hid_proj.image_projection_layers
        hidden = type(layer).__name__ != "ImageProjection"
        for row in new:
            examples = self._example_images(row, shown[row]) if count else []
            images = [bounded(image, self.settings.background) for image in examples]
            images = images or [Image.new("RGB", (64, 64))]
            self._prints[row] = pipe.encode_image(images, pipe.device, 1, hidden)
        seen = torch.stack([self._prints[job.row][0] for job in jobs])
        if not self._guided:
            return seen
        return torch.cat([torch.stack([self._prints[job.row][1] for job in jobs]), seen])

    def _example_images(self, row: int, shown: Sequence[str]) -> list[Image.Image]:
        """The pictures of the examples of these ids."""
        by_id = {example.id: example.image for example in self._requests[row].examples}
        return [image for one in shown if (image := by_id[one]) is not None]
