"""Images by any text-to-image pipeline of diffusers, grounded by the example's caption or image."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, ImageOps
from pydantic import Field

from generators.base import Candidate, Dropped, Example, Generated, ImageRequest
from generators.batching import BatchRunner, Failed, OutOfMemory, collect, seeds_together
from generators.checkpoints import loading
from generators.device import module_bytes, release_memory, resolve_device, resolve_dtype
from generators.diffusion_pipeline import (
    SEVERAL_REFERENCES,
    arguments_of,
    load_pipeline,
    own_dtype,
    pipeline_class,
)
from generators.diffusion_prompts import Readers, image_prompt, readers_of
from generators.diffusion_settings import DiffusionSettings
from generators.frames import Frames, Size, width_height
from generators.grounding import usable_examples
from generators.pictures import at_least, bounded, covering
from generators.prompts import Prompt
from generators.vae import Vae, images_of

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# Pipelines scale a reference in steps of some pixels, and one that is thinner to none.
LEAST_REFERENCE = 64


class DiffusersSettings(DiffusionSettings):
    """Settings of `DiffusersImageGenerator`."""

    kind: Literal["diffusers"] = Field(
        "diffusers", description="A text-to-image pipeline in diffusers' format, of any family."
    )
    grounding: Literal["none", "prompt", "img2img", "reference"] = Field(
        "img2img",
        description="How the example grounds the image: not, by its caption, or by its image, which"
        " img2img starts from and an edit model refers to.",
    )
    arguments: dict[str, bool | int | float | str] = Field(
        {},
        description="What else the pipeline is called with, such as true_cfg_scale or"
        " max_sequence_length.",
    )


@dataclass(frozen=True, slots=True)
class Job:
    """One image to draw. Only jobs of one size, and with as many image examples, share a batch."""

    row: int
    prompt: Prompt
    seed: int
    images: int
    size: Size


class DiffusersImageGenerator:
    """Images of texts by a checkpoint in diffusers' format.

    Parameters
    ----------
    settings : DiffusionSettings
    paths : mapping
        ``model`` -> local folder of the checkpoint; likewise of the other models of the settings.
    """

    Settings: type[DiffusionSettings] = DiffusersSettings

    def __init__(self, settings: Any, paths: Mapping[str, Path]) -> None:
        self.settings = settings
        self.paths = paths
        self._pipe: Any = None
        self._with_picture: Any = None
        self._vae: Vae | None = None
        self._frames: Frames | None = None
        self._readers: Readers | None = None
        self._requests: Sequence[ImageRequest] = ()
        self._runner: BatchRunner[Job, Candidate] = BatchRunner(self._draw, settings.batch_size)
        # Pipelines differ in what a list of references means: each image has a call of its own.
        self._one_by_one: BatchRunner[Job, Candidate] = BatchRunner(self._draw, 1)

    def load(self) -> None:
        """Load the pipeline and what is added to it, once.

        Raises
        ------
        ValueError
            When the folder isn't such a checkpoint in safetensors, or it can't do what is set.
        """
        if self._pipe is not None:
            return
        started = time.monotonic()
        device = resolve_device(self.settings.device)
        dtype = resolve_dtype(self.settings.dtype, device, self._own_dtype())
        with loading():
            pipe, with_picture = self._read(dtype)
        frames = Frames(pipe, self.settings.size)
        pipe.to(device)
        if getattr(pipe, "vae", None) is not None:
            self._vae = Vae(pipe.vae, getattr(pipe, "vae_scale_factor", 8))
            self._vae.tile_above(frames.most_pixels)
        self._pipe, self._with_picture, self._frames = pipe, with_picture, frames
        self._readers = readers_of(self.settings, pipe)
        logger.info(
            "loaded image generator %s on %s in %s: %.2f GB, %d x %d pixels, %.1f s",
            self.settings.model,
            device,
            str(dtype).removeprefix("torch."),
            self.memory() / 1e9,
            *frames.size,
            time.monotonic() - started,
        )

    def _own_dtype(self) -> str | None:
        """What the checkpoint is written in."""
        return own_dtype(Path(self.paths["model"])) if "model" in self.paths else None

    def _read(self, dtype: torch.dtype) -> tuple[Any, Any]:
        """The pipeline, and the one that takes a picture."""
        return load_pipeline(self.settings, self.paths, dtype)

    def close(self) -> None:
        """Drop the pipeline and give its memory back."""
        self._pipe = self._with_picture = self._vae = self._frames = self._readers = None
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
        self._requests = requests
        jobs: list[Job] = []
        for row, request in enumerate(requests):
            prompt = self.prompt(request)
            images = len(prompt.shown) if self.settings.by_image else 0
            size = self._size(row, prompt, images)
            jobs += [Job(row, prompt, seed, images, size) for seed in request.seeds]
        results: list[Candidate | Failed | None] = [None] * len(jobs)
        together = seeds_together(requests)
        try:
            self._begin(requests)
            for alike in sorted({(job.images, job.size) for job in jobs}):
                group = [p for p, job in enumerate(jobs) if (job.images, job.size) == alike]
                alone = self.settings.grounding == "reference" and alike[0]
                runner = self._one_by_one if alone else self._runner
                drawn = runner.run([jobs[place] for place in group], together)
                for place, result in zip(group, drawn, strict=True):
                    results[place] = result
        finally:
            self._requests = ()
            self._forget()
        done = iter([result for result in results if result is not None])
        return [
            collect(request.row_id, [next(done) for _ in request.seeds]) for request in requests
        ]

    def _begin(self, requests: Sequence[ImageRequest]) -> None:
        """Make ready what the batches of one call share."""

    def _forget(self) -> None:
        """Drop what the batches of one call shared."""

    def prompt(self, request: ImageRequest) -> Prompt:
        """The prompt of a row, cut to the tokens that the text encoders take.

        The examples that it shows are those that ground the row by whatever is set: in the prompt
        and with img2img it is one, while others take all.
        """
        assert self._readers is not None
        return image_prompt(self.settings, self._readers, request, *self._usable(request))

    def _usable(self, request: ImageRequest) -> tuple[list[Example], tuple[Dropped, ...]]:
        """The examples that ground a row as it is set, and the others."""
        most = None if self._takes_several() else 1
        return usable_examples(request.examples, self.settings.needs(), most)

    def _takes_several(self) -> bool:
        """Whether more than one example may ground a row."""
        by_reference = self.settings.grounding == "reference"
        return by_reference and type(self._with_picture).__name__ in SEVERAL_REFERENCES

    def _size(self, row: int, prompt: Prompt, images: int) -> Size:
        """What is drawn for a row: of the result's shape, or of the picture that it starts from."""
        assert self._frames is not None
        if self.settings.output_size is not None:
            return self._frames.of_shape(width_height(self.settings.output_size))
        if self.settings.grounding == "img2img" and images:
            return self._frames.of_shape(self._pictures(row, prompt)[0].size)
        return self._frames.size

    def _pictures(self, row: int, prompt: Prompt) -> list[Image.Image]:
        """The pictures of the examples that a row is shown."""
        by_id = {example.id: example.image for example in self._requests[row].examples}
        return [image for one in prompt.shown if (image := by_id[one]) is not None]

    def _draw(self, jobs: list[Job]) -> list[Candidate | Failed]:
        """One batch of images, of one size and grounded by the same number of example images."""
        import torch

        name = type(self._pipe).__name__
        if not jobs[0].images and pipeline_class(name, "TEXT2IMAGE") is None:
            return [Failed(f"no example, and {name} draws nothing without a picture") for _ in jobs]
        with torch.inference_mode():
            output = self._sample(jobs, [torch.Generator("cpu").manual_seed(j.seed) for j in jobs])
        flagged = getattr(output, "nsfw_content_detected", None) or [False] * len(jobs)
        lacking = self._vae.without_room if self._vae is not None else set()
        return [
            OutOfMemory("out of memory while a single image was decoded")
            if place in lacking
            else self._candidate(job, None if declined else image, bool(declined))
            for place, (job, image, declined) in enumerate(
                zip(jobs, images_of(output.images), flagged, strict=True)
            )
        ]

    def _sample(self, jobs: list[Job], generators: list[torch.Generator]) -> Any:
        """What the pipeline answers for a batch, its images as a tensor."""
        grounding, pipe = self.settings.grounding, self._pipe
        conditions: dict[str, Any] = {"prompt": [job.prompt.text for job in jobs]}
        if self.settings.negative_prompt is not None:
            conditions["negative_prompt"] = [self.settings.negative_prompt] * len(jobs)
        if jobs[0].images and grounding in ("img2img", "reference"):
            pipe = self._with_picture
            conditions["image"] = self._given(jobs)
        return pipe(**conditions, **arguments_of(self.settings, pipe, jobs[0].size, generators))

    def _given(self, jobs: list[Job]) -> Any:
        """The pictures that a batch starts from, or that its one image refers to."""
        ground = self.settings.background
        if self.settings.grounding == "img2img":
            pictures = [self._pictures(job.row, job.prompt)[0] for job in jobs]
            return [
                covering(one, job.size, ground) for one, job in zip(pictures, jobs, strict=True)
            ]
        (job,) = jobs
        shown = self._pictures(job.row, job.prompt)
        pictures = [at_least(bounded(one, ground), LEAST_REFERENCE) for one in shown]
        return pictures if self._takes_several() else pictures[0]

    def _candidate(self, job: Job, image: Image.Image | None, declined: bool) -> Candidate:
        notes = job.prompt.notes
        if declined:
            notes = (*notes, "refused: the checkpoint's own safety checker declined the image")
        elif image is None:
            notes = (*notes, "nan: the model gave values that are not finite")
        elif self.settings.output_size is not None:
            size = width_height(self.settings.output_size)
            image = ImageOps.fit(image, size, method=Image.Resampling.LANCZOS)
        return Candidate(
            job.seed,
            job.prompt.text,
            image=image,
            notes=notes,
            shown=job.prompt.shown,
            dropped=job.prompt.dropped,
        )
