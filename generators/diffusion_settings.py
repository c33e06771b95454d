"""Settings of the image generators whose model is a diffusion pipeline."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from generators.base import Needs
from generators.checkpoints import CheckpointSettings
from generators.frames import LEARNED_SIDE, width_height
from generators.prompts import ImagePromptSettings

# Folders of published checkpoints that are no part of the pipeline: older weights, other formats.
NO_PARTS = frozenset({"vae_1_0", "vae_encoder", "vae_decoder"})
# What makes few steps suffice by learning the guidance in; fine-tuned ones bear a little more.
DISTILLED = re.compile("turbo|lightning", re.IGNORECASE)
MOST_GUIDANCE = 2.5
CONFIGURATION = (".json", ".txt", ".model", ".jinja")


class _Named(BaseModel):
    """A part that may be given by its name alone."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {next(iter(cls.model_fields)): value} if isinstance(value, str) else value


class VaeSettings(_Named):
    """Another VAE than the checkpoint's own, such as one that half precision does not overflow."""

    model: str = Field(description="Model id or folder of the VAE.")
    revision: str | None = Field(None, description="Commit of the VAE; None is resolved once.")
    subfolder: str = Field("", description="Folder of the VAE within the model.")


class LoraSettings(_Named):
    """Low-rank changes of the weights (Hu et al. 2022), merged into them when they are loaded."""

    model: str = Field(description="Model id or folder of the LoRA.")
    revision: str | None = Field(None, description="Commit of the LoRA; None is resolved once.")
    weight_name: str | None = Field(
        None, description="File of the LoRA, safetensors only; None where there is one alone."
    )
    weight: float = Field(1.0, description="How much of it is added; 1 is all.")

    @field_validator("weight_name")
    @classmethod
    def _safetensors(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith(".safetensors"):
            raise ValueError(
                f"weight_name must be a .safetensors file, since others run code; got {value!r}"
            )
        return value

    def file(self, available: Sequence[str]) -> str:
        """The weights among the files of a model.

        Raises
        ------
        ValueError
            When there are none, or more than one and none is named.
        """
        found = [file for file in available if file.endswith(".safetensors")]
        usual = "pytorch_lora_weights.safetensors"
        wanted = self.weight_name or (usual if usual in found else None)
        if wanted is None and len(found) == 1:
            return found[0]
        if wanted not in found:
            told = ", ".join(sorted(found)) or "no safetensors"
            raise ValueError(
                f"lora.weight_name must be a file of {self.model}, which holds {told}; "
                f"got {self.weight_name}"
            )
        return wanted


class SchedulerSettings(_Named):
    """What takes the denoising steps, in the place of the checkpoint's own."""

    name: str = Field(description="A scheduler class of diffusers, such as LCMScheduler.")
    options: dict[str, Any] = Field(
        {}, description="Its own settings, such as timestep_spacing; others are the checkpoint's."
    )

    @model_validator(mode="after")
    def _known(self) -> SchedulerSettings:
        import diffusers

        found = getattr(diffusers, self.name, None)
        if not (inspect.isclass(found) and issubclass(found, diffusers.SchedulerMixin)):
            raise ValueError(f"name must be a scheduler class of diffusers; got {self.name!r}")
        known = list(inspect.signature(found.__init__).parameters)[1:]
        if unknown := [name for name in self.options if name not in known]:
            raise ValueError(f"options of {self.name} are {', '.join(known)}; got {unknown[0]!r}")
        return self


class DiffusionSettings(ImagePromptSettings, CheckpointSettings):
    """Settings of every diffusion pipeline."""

    kind: str = Field("", description="Name of the generator.")
    variant: str | None = Field(
        "auto",
        description="Weight files to read, such as fp16; auto takes fp16 if there, unless another "
        "dtype is asked for.",
    )
    batch_size: int = Field(8, ge=1, description="Images drawn at once; halved when out of memory.")
    grounding: Literal["none", "prompt", "img2img", "ip_adapter", "reference"] = Field(
        "img2img",
        description="How the example grounds the image: not, by its caption, or by its image.",
    )
    negative_prompt: str | None = Field(
        None, description="What the image should not show; None leaves the guidance empty."
    )
    steps: int | None = Field(
        None, ge=1, description="Denoising steps; None takes the pipeline's own number."
    )
    guidance_scale: float | None = Field(
        None,
        ge=0,
        description="How strongly the image follows the text; 1 and less turns it off, None takes"
        " the pipeline's own.",
    )
    strength: float = Field(
        0.75,
        gt=0,
        lt=1,
        description="How much of the example img2img replaces; below 1, which keeps nothing.",
    )
    size: Literal["auto"] | int | tuple[int, int] = Field(
        "auto",
        description="Pixels drawn, a side or (width, height); auto is what the model learned on, in"
        " the shape of the example that img2img starts from.",
    )
    output_size: int | tuple[int, int] | None = Field(
        None, description="Pixels of the result, a side or (width, height); None keeps the size."
    )
    background: str = Field("white", description="Ground of transparent examples.")
    vae: VaeSettings | None = Field(None, description="Another VAE than the checkpoint's own.")
    scheduler: SchedulerSettings | None = Field(
        None, description="What takes the denoising steps; None is the checkpoint's own."
    )
    lora: LoraSettings | None = Field(None, description="Low-rank changes of the weights.")

    @field_validator("size", "output_size")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        sides = value if isinstance(value, tuple) else (value,)
        if any(isinstance(side, int) and side < 1 for side in sides):
            raise ValueError(f"a size must be at least 1 pixel; got {value}")
        return value

    @model_validator(mode="after")
    def _denoises(self) -> DiffusionSettings:
        if self.grounding == "img2img" and self.steps is not None:
            check_steps(self.steps, self.strength)
        return self

    @model_validator(mode="after")
    def _guides_no_more_than_it_learned(self) -> DiffusionSettings:
        name, guidance = self.distilled, self.guidance_scale
        if name and (guidance is None or guidance > MOST_GUIDANCE):
            raise ValueError(
                f"guidance_scale must be at most {MOST_GUIDANCE} for {name}, which has learned it in"
                f" (0 as published); got {guidance}"
            )
        return self

    @property
    def distilled(self) -> str | None:
        """What of the models was made for few steps without guidance, by its name."""
        names = [self.model]
        if self.lora is not None:
            names += [self.lora.model, self.lora.weight_name or ""]
        return next((name for name in names if DISTILLED.search(name)), None)

    @property
    def by_image(self) -> bool:
        """Whether examples ground by their pictures."""
        return self.grounding in ("img2img", "ip_adapter", "reference")

    def drawn_pixels(self) -> int:
        """Pixels of a result as far as the settings tell: a megapixel where the model decides."""
        wanted = self.output_size or (LEARNED_SIDE if self.size == "auto" else self.size)
        width, height = width_height(wanted)
        return width * height

    def needs(self) -> Needs:
        """The half of an example by which it grounds the image."""
        # Twice that of what is drawn, so that a picture which is cropped to its shape still fills it.
        drawn = LEARNED_SIDE if self.size == "auto" else max(width_height(self.size))
        return Needs(
            text=self.grounding == "prompt",
            image=self.by_image,
            side=2 * max(LEARNED_SIDE, drawn),
        )

    def models(self) -> dict[str, tuple[str, str | None]]:
        """The checkpoint, and what takes the place of a part of it or is added."""
        models = super().models()
        for role in ("vae", "lora"):
            if (part := getattr(self, role)) is not None:
                models[role] = (part.model, part.revision)
        return models

    def files(self, role: str, available: Sequence[str]) -> list[str]:
        """Choose what is read among the files of a repository: one precision of each part.

        Half precision is read unless another is asked for and there: on a machine without a GPU it
        is widened, and a download for one with a GPU is half as large.

        Raises
        ------
        ValueError
            When the file of a LoRA isn't told.
        """
        if role == "lora":
            assert self.lora is not None
            return [self.lora.file(available)]
        variant = self.read_variant(available)
        if role == "vae":
            assert self.vae is not None
            start = f"{self.vae.subfolder}/" if self.vae.subfolder else ""
            own = [f for f in available if f.startswith(start) and "/" not in f[len(start) :]]
            return [f for f in own if f == f"{start}config.json"] + _of_variant(own, variant)
        chosen = ["model_index.json"]
        nested = [f for f in available if f.count("/") == 1]
        for part in sorted({f.split("/")[0] for f in nested} - NO_PARTS):
            files = [f for f in nested if f.startswith(f"{part}/")]
            chosen += [f for f in files if f.endswith(CONFIGURATION)]
            chosen += _of_variant(files, variant)
        return [f for f in chosen if f in available]

    def read_variant(self, files: Sequence[str]) -> str | None:
        """The weight files to read of a checkpoint's files, by those of what denoises.

        The machine has no say, so that a checkpoint is the same weights on each.
        """
        if self.variant != "auto":
            return self.variant
        own = [f for f in files if fnmatchcase(f, "unet/*.safetensors")]
        own = own or [f for f in files if fnmatchcase(f, "transformer/*.safetensors")]
        own = own or [f for f in files if f.endswith(".safetensors")]
        there = {_variant_of(f) for f in own}
        enough = self.dtype in ("auto", "float16") or None not in there
        return "fp16" if "fp16" in there and enough else None

    def identity(self) -> dict[str, Any]:
        """All that changes the image: settings of a grounding that isn't used stay out."""
        unused = {name for name in ("vae", "scheduler", "lora") if getattr(self, name) is None}
        if self.grounding != "img2img":
            unused.add("strength")
        if self.grounding != "prompt":
            unused.add("example_template")
        return {name: value for name, value in super().identity().items() if name not in unused}


def check_steps(steps: int, strength: float) -> None:
    """Raises ValueError where img2img would not take a single step: it takes steps x strength."""
    if int(steps * strength) < 1:
        raise ValueError(
            f"steps x strength must be at least 1; got {steps} x {strength} = {steps * strength:g}"
        )


def check_kept(steps: int, strength: float, name: str) -> None:
    """Raises ValueError where flow matching would begin with noise alone, in which no example is left.

    Its first step is at pure noise: img2img has to leave out one at least.
    """
    if int(steps - steps * strength) < 1:
        raise ValueError(
            f"steps x (1 - strength) must be at least 1 for {name}, or nothing of the example is"
            f" kept; got {steps} x (1 - {strength})"
        )


def _of_variant(files: Sequence[str], variant: str | None) -> list[str]:
    """The weights of a part in a variant; the plain ones where it has no such variant."""
    weights = [f for f in files if f.endswith(".safetensors")]
    plain = [f for f in weights if _variant_of(f) is None]
    return [f for f in weights if _variant_of(f) == variant] or plain


def _variant_of(weights: str) -> str | None:
    """The variant in a file's name: fp16 of `unet/model.fp16-00001-of-00002.safetensors`."""
    marks = PurePosixPath(weights).name.split(".")[1:-1]
    return marks[0].split("-")[0] if marks else None
