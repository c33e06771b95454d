"""Images by Stable Diffusion XL (Podell et al. 2023), grounded by the example's caption or image."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from generators.base import Candidate, Generated, ImageRequest
from generators.batching import BatchRunner, OutOfMemory, collect, seeds_together
from generators.checkpoints import loading, local_folder, require_safetensors
from generators.device import (
    module_bytes,
    release_memory,
    resolve_device,
    resolve_dtype,
)
from generators.latents import LatentCodec
from generators.pictures import fitted_into, on_ground
from generators.prompts import Prompt, fit
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
        from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

        started = time.monotonic()
        folder = local_folder(self.paths, "model", "model_index.json")
        device = resolve_device(self.settings.device)
        dtype = resolve_dtype(self.settings.dtype, device)
        with loading():
            pipe = StableDiffusionXLPipeline.from_pretrained(
                folder,
                dtype=dtype,
                variant=self._variant(folder, dtype),
                use_safetensors=True,
                local_files_only=True,
                add_watermarker=False,
                low_cpu_mem_usage=_has_accelerate(),
            )
            if self.settings.grounding == "ip_adapter":
                self._load_adapter(pipe, dtype)
        pipe = pipe.to(device)
        pipe.set_progress_bar_config(disable=True)
        self._size = self._drawn_size(pipe)
        self._codec = LatentCodec(pipe.vae, pipe.vae_scale_factor)
        if self.settings.grounding == "img2img":
            self._redraw = StableDiffusionXLImg2ImgPipeline(
                **{name: part for name, part in pipe.components.items()},
                force_zeros_for_empty_prompt=pipe.config.force_zeros_for_empty_prompt,
                add_watermarker=False,
            )
            self._redraw.set_progress_bar_config(disable=True)
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
            images = self._images_used(request)
            prompt = self.prompt(request, ungrounded=images == 0)
            jobs += [_Job(row, prompt, seed, images) for seed in request.seeds]
        results: list[Candidate | OutOfMemory | None] = [None] * len(jobs)
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

    def prompt(self, request: ImageRequest, ungrounded: bool = False) -> Prompt:
        """The prompt of a row, cut to the tokens that the text encoders take (77 of SDXL's)."""
        settings = self.settings

        def render(text: str, examples: Sequence[str]) -> str:
            if examples:
                return settings.example_template.format(text=text, example=examples[0])
            return settings.template.format(text=text)

        by_text = settings.grounding == "prompt"
        examples = [example.text for example in request.examples[:1]] if by_text else []
        tokenizers = [one for one in (self._pipe.tokenizer, self._pipe.tokenizer_2) if one]
        limit = min(tokenizer.model_max_length for tokenizer in tokenizers)
        prompt = fit(render, request.text, examples, tokenizers, limit)
        by_image = settings.grounding in ("img2img", "ip_adapter")
        if (by_image and ungrounded) or (by_text and not any(map(str.strip, examples))):
            return Prompt(prompt.text, (*prompt.notes, "no example: drawn from the text alone"))
        return prompt

    def _images_used(self, request: ImageRequest) -> int:
        """How many example images ground this row: img2img takes one, the adapter takes all."""
        found = sum(example.image is not None for example in request.examples)
        return {"img2img": min(found, 1), "ip_adapter": found}.get(self.settings.grounding, 0)

    def _example_images(self, row: int, count: int) -> list[Image.Image]:
        found = (example.image for example in self._requests[row].examples)
        return [image for image in found if image is not None][:count]

    def _forget(self, requests: Sequence[ImageRequest]) -> None:
        """Start on new requests: what was encoded belongs to the old ones."""
        self._requests: Sequence[ImageRequest] = requests
        self._texts: dict[int, _EncodedText] = {}
        self._posteriors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._prints: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._negative: _EncodedText | None = None

    def _draw(self, jobs: list[_Job]) -> list[Candidate]:
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
            size = _pair(self.settings.output_size)
            image = image.resize(size, Image.Resampling.LANCZOS)
        return Candidate(job.seed, job.prompt.text, image=image, notes=notes)

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
        rows = list(dict.fromkeys(job.row for job in jobs))
        new = [row for row in rows if row not in self._posteriors]
        self._posteriors = {row: self._posteriors[row] for row in rows if row in self._posteriors}
        images = [
            fitted_into(self._example_images(row, 1)[0], self._size, self.settings.background)
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
        rows = list(dict.fromkeys(job.row for job in jobs))
        new = [row for row in rows if row not in self._prints]
        self._prints = {row: self._prints[row] for row in rows if row in self._prints}
        (layer,) = pipe.unet.encoder_hid_proj.image_projection_layers
        hidden = type(layer).__name__ != "ImageProjection"
        for row in new:
            ground = self.settings.background
            images = [on_ground(image, ground) for image in self._example_images(row, count)]
            images = images or [Image.new("RGB", (64, 64))]
            self._prints[row] = pipe.encode_image(images, pipe.device, 1, hidden)
        seen = torch.stack([self._prints[job.row][0] for job in jobs])
        if not self._guided():
            return seen
        return torch.cat([torch.stack([self._prints[job.row][1] for job in jobs]), seen])

    def _load_adapter(self, pipe: Any, dtype: torch.dtype) -> None:
        """Put the adapter's weights into the UNet, and its image encoder beside it.

        The encoder is loaded here: diffusers' own loader would fall back to a pickle.
        """
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        settings = self.settings.ip_adapter
        folder = local_folder(
            self.paths, "ip_adapter", str(Path(settings.subfolder) / settings.weight_name)
        )
        encoder_folder = folder / settings.image_encoder
        if not (encoder_folder / "config.json").is_file():
            raise ValueError(
                f"ip_adapter.image_encoder {settings.image_encoder!r} is not in {str(folder)!r}"
            )
        require_safetensors(encoder_folder)
        encoder = CLIPVisionModelWithProjection.from_pretrained(
            encoder_folder, dtype=dtype, use_safetensors=True, local_files_only=True
        )
        side = encoder.config.image_size
        pipe.register_modules(
            image_encoder=encoder.eval(),
            feature_extractor=CLIPImageProcessor(size=side, crop_size=side),
        )
        pipe.load_ip_adapter(
            str(folder),
            subfolder=settings.subfolder,
            weight_name=settings.weight_name,
            image_encoder_folder=None,
            local_files_only=True,
            low_cpu_mem_usage=_has_accelerate(),
        )
        # diffusers reads a list of images as several images of one prompt, and repeats embeddings by
        # the whole batch. Ours hold a row for every prompt of the batch, and pass as they are.
        pipe.prepare_ip_adapter_image_embeds = lambda images, embeds, *rest: embeds

    def _variant(self, folder: Path, dtype: torch.dtype) -> str | None:
        """The weight files to read: half-precision ones where they are enough, or all there is."""
        import torch

        if self.settings.variant != "auto":
            return self.settings.variant
        weights = [path.name for path in (folder / "unet").glob("*.safetensors")]
        if not any(".fp16." in name for name in weights):
            return None
        only = all(".fp16." in name for name in weights)
        return "fp16" if only or dtype == torch.float16 else None

    def _drawn_size(self, pipe: Any) -> tuple[int, int]:
        """(width, height) that the model draws; warns about one that it did not learn on.

        Raises
        ------
        ValueError
            When a side isn't a multiple of what one latent covers.
        """
        native = _pair(pipe.unet.config.sample_size, reverse=True)
        native = (native[0] * pipe.vae_scale_factor, native[1] * pipe.vae_scale_factor)
        size = native if self.settings.size == "auto" else _pair(self.settings.size)
        unit = max(8, pipe.vae_scale_factor)
        if any(side % unit for side in size):
            near = " x ".join(str(max(unit, round(side / unit) * unit)) for side in size)
            raise ValueError(
                f"size must be a multiple of {unit} pixels; got {size[0]} x {size[1]}, "
                f"the nearest is {near}"
            )
        area = size[0] * size[1] / (native[0] * native[1])
        if not 0.75 <= area <= 1.35:
            logger.warning(
                "size %d x %d is far from the %d x %d that the model learned on: expect poor images; "
                "leave size at auto and set output_size to resize the result",
                *size,
                *native,
            )
        return size


def _pair(size: Any, reverse: bool = False) -> tuple[int, int]:
    """(width, height) of a side, or of a pair; ``reverse`` for a pair given as height and width."""
    if isinstance(size, int):
        return size, size
    first, second = size
    return (second, first) if reverse else (first, second)


def _has_accelerate() -> bool:
    """Whether diffusers can fill a model straight from the file; else it builds it twice."""
    from diffusers.utils import is_accelerate_available

    return bool(is_accelerate_available())
