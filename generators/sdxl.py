"""Images by Stable Diffusion XL (Podell et al. 2023), grounded by the example's caption or image."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from generators.base import Candidate, Dropped, Example, Generated, ImageRequest
from generators.batching import BatchRunner, Failed, collect, seeds_together
from generators.device import (
    module_bytes,
    release_memory,
    resolve_device,
    resolve_dtype,
)
from generators.grounding import usable_examples
from generators.latents import LatentCodec
from generators.pictures import bounded, fitted_into
from generators.prompts import Prompt, fit
from generators.sdxl_pipeline import drawn_size, load_pipeline, redrawing, width_height
from generators.sdxl_settings import SdxlSettings

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    """One image to draw. Only jobs with the same number of image examples share a batch."""

    row: int
    prompt: Prompt
    seed: int
    images: int


@dataclass(frozen=True, slots=True)
class _EncodedText:
    """What the text encoders say of one prompt: [tokens, width] and [pooled width]."""

    tokens: torch.Tensor
    pooled: torch.Tensor


class SdxlImageGenerator:
    """Images of texts by an SDXL checkpoint.

    Parameters
    ----------
    settings : SdxlSettings
    paths : mapping
        ``model`` -> local folder of the checkpoint; ``ip_adapter`` -> that of the adapter where the
        grounding uses it.
    """

    Settings = SdxlSettings

    def __init__(self, settings: SdxlSettings, paths: Mapping[str, Path]) -> None:
        self.settings = settings
        self.paths = paths
        self._pipe: Any = None
        self._redraw: Any = None
        self._codec: LatentCodec | None = None
        self._size = (0, 0)
        self._runner: BatchRunner[_Job, Candidate] = BatchRunner(self._draw, settings.batch_size)
        self._forget([])

    def load(self) -> None:
        """Load the pipeline, and the adapter where it is used, once.

        Raises
        ------
        ValueError
            When the folder isn't an SDXL checkpoint in safetensors, or the size can't be drawn.
        """
        if self._pipe is not None:
            return
        started = time.monotonic()
        device = resolve_device(self.settings.device)
        # SDXL is published, and drawn by everyone, in float16; its VAE is seen to by `LatentCodec`.
        dtype = resolve_dtype(self.settings.dtype, device, own="float16")
        pipe = load_pipeline(self.settings, self.paths, dtype).to(device)
        pipe.set_progress_bar_config(disable=True)
        self._size = drawn_size(pipe, self.settings.size)
        self._codec = LatentCodec(pipe.vae, pipe.vae_scale_factor)
        if self.settings.grounding == "img2img":
            self._redraw = redrawing(pipe)
        self._pipe = pipe
        logger.info(
            "loaded image generator %s on %s in %s: %.2f GB, %d x %d pixels, %.1f s",
            self.settings.model,
            device,
            str(dtype).removeprefix("torch."),
            self.memory() / 1e9,
            *self._size,
            time.monotonic() - started,
        )

    def close(self) -> None:
        """Drop the pipeline and give its memory back."""
        self._pipe = self._redraw = self._codec = None
        self._forget([])
        release_memory()

    def memory(self) -> int:
        """Bytes of the weights; 0 before `load`."""
        if self._pipe is None:
            return 0
        parts = self._pipe.components.values()
        return module_bytes([part for part in parts if hasattr(part, "parameters")])

    def generate(self, requests: Sequence[ImageRequest]) -> list[Generated]:
        """Draw an image for every seed of every request.

        A row without an example that has an image is drawn from its text alone, and says so. A row
        whose image does not fit into memory even alone gets an error; the others go on.
        """
        self.load()
        self._forget(requests)
        jobs: list[_Job] = []
        for row, request in enumerate(requests):
            prompt = self.prompt(request)
            images = len(prompt.shown) if self.settings.by_image else 0
            jobs += [_Job(row, prompt, seed, images) for seed in request.seeds]
        results: list[Candidate | Failed | None] = [None] * len(jobs)
        together = seeds_together(requests)
        try:
            for images in sorted({job.images for job in jobs}):
                group = [place for place, job in enumerate(jobs) if job.images == images]
                drawn = self._runner.run([jobs[place] for place in group], together)
                for place, result in zip(group, drawn, strict=True):
                    results[place] = result
        finally:
            self._forget([])
        done = iter([result for result in results if result is not None])
        return [
            collect(request.row_id, [next(done) for _ in request.seeds]) for request in requests
        ]

    def prompt(self, request: ImageRequest) -> Prompt:
        """The prompt of a row, cut to the tokens that the text encoders take (77 of SDXL's).

        The examples that it shows are those that ground the row by whatever is set: in the prompt
        and with img2img it is one, while the adapter takes all.
        """
        settings = self.settings

        def render(text: str, captions: Sequence[str]) -> str:
            if captions:
                return settings.example_template.format(text=text, example=captions[0])
            return settings.template.format(text=text)

        usable, dropped = self._usable(request)
        by_text = settings.grounding == "prompt"
        tokenizers = [one for one in (self._pipe.tokenizer, self._pipe.tokenizer_2) if one]
        limit = min(tokenizer.model_max_length for tokenizer in tokenizers)
        prompt = fit(render, request.text, usable if by_text else (), tokenizers, limit)
        shown = prompt.shown if by_text else tuple(example.id for example in usable)
        notes = prompt.notes
        if settings.grounding != "none" and not usable:
            notes = (*notes, "no example: drawn from the text alone")
        return Prompt(prompt.text, notes, shown, (*prompt.dropped, *dropped))

    def _usable(self, request: ImageRequest) -> tuple[list[Example], tuple[Dropped, ...]]:
        """The examples that ground a row as it is set, and the others."""
        return usable_examples(
            request.examples, self.settings.needs(), 1 if self.settings.takes_one else None
        )

    def _example_images(self, row: int, shown: Sequence[str]) -> list[Image.Image]:
        """The pictures of the examples of these ids."""
        by_id = {example.id: example.image for example in self._requests[row].examples}
        return [image for one in shown if (image := by_id[one]) is not None]

    def _forget(self, requests: Sequence[ImageRequest]) -> None:
        """Start on new requests: what was encoded belongs to the old ones."""
        self._requests: Sequence[ImageRequest] = requests
        self._texts: dict[int, _EncodedText] = {}
        self._posteriors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._prints: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._negative: _EncodedText | None = None

    def _draw(self, jobs: list[_Job]) -> list[Candidate | Failed]:
        """One batch of images, all grounded by the same number of example images."""
        import torch

        with torch.inference_mode():
            arguments = self._conditions(jobs)
            generators = [torch.Generator("cpu").manual_seed(job.seed) for job in jobs]
            arguments |= {
                "generator": generators,
                "num_inference_steps": self.settings.steps,
                "guidance_scale": self.settings.guidance_scale,
                "output_type": "latent",
            }
            if self.settings.grounding == "img2img" and jobs[0].images:
                latents = self._redraw(
                    image=self._start(jobs, generators),
                    strength=self.settings.strength,
                    **arguments,
                ).images
            else:
                if self.settings.grounding == "ip_adapter":
                    arguments["ip_adapter_image_embeds"] = [self._image_prompt(jobs)]
                width, height = self._size
                latents = self._pipe(width=width, height=height, **arguments).images
            assert self._codec is not None
            images = self._codec.decode(latents)
        return [self._candidate(job, image) for job, image in zip(jobs, images, strict=True)]

    def _candidate(self, job: _Job, image: Image.Image | None) -> Candidate:
        notes = job.prompt.notes
        if image is None:
            notes = (*notes, "nan: the model gave values that are not finite")
        elif self.settings.output_size is not None:
            size = width_height(self.settings.output_size)
            image = image.resize(size, Image.Resampling.LANCZOS)
        return Candidate(
            job.seed,
            job.prompt.text,
            image=image,
            notes=notes,
            shown=job.prompt.shown,
            dropped=job.prompt.dropped,
        )

    def _conditions(self, jobs: list[_Job]) -> dict[str, Any]:
        """The encoded texts of a batch; each text is encoded once for its n images."""
        import torch

        rows = list(dict.fromkeys(job.row for job in jobs))
        prompts = {job.row: job.prompt.text for job in jobs}
        guided = self._guided()
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

    def _guided(self) -> bool:
        """Whether the UNet runs twice, with and without the text."""
        return (
            self.settings.guidance_scale > 1 and self._pipe.unet.config.time_cond_proj_dim is None
        )

    def _start(self, jobs: list[_Job], generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Latents of the examples, [n, channels, h, w]; each is encoded once for its n images."""
        import torch

        assert self._codec is not None
        shown = {job.row: job.prompt.shown for job in jobs}
        new = [row for row in shown if row not in self._posteriors]
        self._posteriors = {row: self._posteriors[row] for row in shown if row in self._posteriors}
        images = [
            fitted_into(
                self._example_images(row, shown[row])[0], self._size, self.settings.background
            )
            for row in new
        ]
        self._posteriors.update(zip(new, self._codec.posterior(images), strict=True))
        drawn = [
            self._codec.sample(self._posteriors[job.row], generator)
            for job, generator in zip(jobs, generators, strict=True)
        ]
        return torch.cat(drawn).to(self._pipe.unet.dtype)

    def _image_prompt(self, jobs: list[_Job]) -> torch.Tensor:
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
        if not self._guided():
            return seen
        return torch.cat([torch.stack([self._prints[job.row][1] for job in jobs]), seen])
