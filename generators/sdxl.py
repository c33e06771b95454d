"""Images by Stable Diffusion XL (Podell et al. 2023), grounded by the example's caption or image."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from generators.prompts import Prompt, fit
from generators.sdxl_conditions import Conditions, Job
from generators.sdxl_pipeline import drawn_size, load_pipeline, redrawing, width_height
from generators.sdxl_settings import SdxlSettings

logger = logging.getLogger(__name__)


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
        self._runner: BatchRunner[Job, Candidate] = BatchRunner(self._draw, settings.batch_size)
        self._conditions: Conditions | None = None

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
        self._pipe = self._redraw = self._codec = self._conditions = None
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
        assert self._codec is not None
        self._conditions = Conditions(self.settings, self._pipe, self._codec, self._size, requests)
        jobs: list[Job] = []
        for row, request in enumerate(requests):
            prompt = self.prompt(request)
            images = len(prompt.shown) if self.settings.by_image else 0
            jobs += [Job(row, prompt, seed, images) for seed in request.seeds]
        results: list[Candidate | Failed | None] = [None] * len(jobs)
        together = seeds_together(requests)
        try:
            for images in sorted({job.images for job in jobs}):
                group = [place for place, job in enumerate(jobs) if job.images == images]
                drawn = self._runner.run([jobs[place] for place in group], together)
                for place, result in zip(group, drawn, strict=True):
                    results[place] = result
        finally:
            self._conditions = None
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

    def _draw(self, jobs: list[Job]) -> list[Candidate | Failed]:
        """One batch of images, all grounded by the same number of example images."""
        import torch

        conditions, codec = self._conditions, self._codec
        assert conditions is not None and codec is not None
        with torch.inference_mode():
            arguments = conditions.texts(jobs)
            generators = [torch.Generator("cpu").manual_seed(job.seed) for job in jobs]
            arguments |= {
                "generator": generators,
                "num_inference_steps": self.settings.steps,
                "guidance_scale": self.settings.guidance_scale,
                "output_type": "latent",
            }
            if self.settings.grounding == "img2img" and jobs[0].images:
                latents = self._redraw(
                    image=conditions.start(jobs, generators),
                    strength=self.settings.strength,
                    **arguments,
                ).images
            else:
                if self.settings.grounding == "ip_adapter":
                    arguments["ip_adapter_image_embeds"] = [conditions.image_prompt(jobs)]
                width, height = self._size
                latents = self._pipe(width=width, height=height, **arguments).images
            images = codec.decode(latents)
        return [self._candidate(job, image) for job, image in zip(jobs, images, strict=True)]

    def _candidate(self, job: Job, image: Image.Image | None) -> Candidate:
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
