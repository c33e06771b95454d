"""Settings of the SDXL image generator."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from generators.base import Needs
from generators.checkpoints import CheckpointSettings
from generators.prompts import ImagePromptSettings

# The longest side of an example's picture that is of use: twice that of the largest picture that the
# model learned on, so that one which is cropped to another shape still fills it.
SIDE = 2048
# Folders of the parts of an SDXL checkpoint.
PARTS = (
    "scheduler",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "unet",
    "vae",
)


class IPAdapterSettings(BaseModel):
    """The image prompt adapter of ``grounding: ip_adapter`` (Ye et al. 2023)."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("h94/IP-Adapter", description="Model id or folder of the adapter.")
    revision: str | None = Field(None, description="Commit of the adapter; None is resolved once.")
    subfolder: str = Field("sdxl_models", description="Folder of the weights within the model.")
    weight_name: str = Field(
        "ip-adapter_sdxl.safetensors", description="File of the weights; safetensors only."
    )
    image_encoder: str = Field(
        "sdxl_models/image_encoder",
        description="Folder of the CLIP image encoder within the model.",
    )
    scale: float = Field(
        0.6, gt=0, le=2, description="Weight of the example, above 0; a row without one gets 0."
    )

    @field_validator("weight_name")
    @classmethod
    def _safetensors(cls, value: str) -> str:
        if not value.endswith(".safetensors"):
            raise ValueError(
                f"weight_name must be a .safetensors file, since others run code; got {value!r}"
            )
        return value


class SdxlSettings(ImagePromptSettings, CheckpointSettings):
    """Settings of `SdxlImageGenerator`."""

    kind: Literal["sdxl"] = Field("sdxl", description="A Stable Diffusion XL checkpoint.")
    model: str = Field(
        "stabilityai/stable-diffusion-xl-base-1.0",
        description="Model id, or a folder in the same format.",
    )
    variant: str | None = Field(
        "auto",
        description="Weight files to read, such as fp16; auto takes fp16 if there, unless another "
        "dtype is asked for.",
    )
    batch_size: int = Field(8, ge=1, description="Images drawn at once; halved when out of memory.")
    grounding: Literal["none", "prompt", "img2img", "ip_adapter"] = Field(
        "img2img",
        description="How the example grounds the image: not, by its caption, or by its image.",
    )
    negative_prompt: str | None = Field(
        None, description="What the image should not show; None leaves the guidance empty."
    )
    steps: int = Field(30, ge=1, description="Denoising steps.")
    guidance_scale: float = Field(
        6.0, ge=0, description="How strongly the image follows the text; 1 and less turns it off."
    )
    strength: float = Field(
        0.75, gt=0, le=1, description="How much of the example img2img replaces; 1 keeps nothing."
    )
    size: Literal["auto"] | int | tuple[int, int] = Field(
        "auto",
        description="Pixels drawn, a side or (width, height); auto is what the model learned on.",
    )
    output_size: int | tuple[int, int] | None = Field(
        None, description="Pixels of the result, a side or (width, height); None keeps the size."
    )
    background: str = Field(
        "white", description="Ground of transparent examples, and of the padding around them."
    )
    ip_adapter: IPAdapterSettings = Field(
        default_factory=IPAdapterSettings,
        description="The adapter of that grounding.",
    )

    @field_validator("size", "output_size")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        sides = value if isinstance(value, tuple) else (value,)
        if any(isinstance(side, int) and side < 1 for side in sides):
            raise ValueError(f"a size must be at least 1 pixel; got {value}")
        return value

    @model_validator(mode="after")
    def _denoises(self) -> SdxlSettings:
        # diffusers runs int(steps * strength) steps; with none it fails in the middle of a run.
        if self.grounding == "img2img" and int(self.steps * self.strength) < 1:
            raise ValueError(
                f"steps x strength must be at least 1; got {self.steps} x {self.strength} "
                f"= {self.steps * self.strength:g}"
            )
        return self

    @property
    def by_image(self) -> bool:
        """Whether examples ground by their pictures."""
        return self.grounding in ("img2img", "ip_adapter")

    @property
    def takes_one(self) -> bool:
        """Whether one example alone grounds a row: only the adapter takes several."""
        return self.grounding != "ip_adapter"

    def needs(self) -> Needs:
        """The half of an example by which it grounds the image."""
        return Needs(text=self.grounding == "prompt", image=self.by_image, side=SIDE)

    def models(self) -> dict[str, tuple[str, str | None]]:
        """The checkpoint, and the adapter where the grounding uses it."""
        models = super().models()
        if self.grounding == "ip_adapter":
            models["ip_adapter"] = (self.ip_adapter.model, self.ip_adapter.revision)
        return models

    def files(self, role: str, available: Sequence[str]) -> list[str]:
        """Choose what is read among the files of a repository: one precision, one adapter.

        Half precision is read unless another is asked for and there: on a machine without a GPU it
        is widened, and a download for one with a GPU is half as large.
        """
        if role == "ip_adapter":
            adapter, encoder = self.ip_adapter, PurePosixPath(self.ip_adapter.image_encoder)
            read = {
                str(PurePosixPath(adapter.subfolder) / adapter.weight_name),
                str(encoder / "config.json"),
                str(encoder / "model.safetensors"),
            }
            return [file for file in available if file in read]
        chosen = ["model_index.json"]
        variant = self.read_variant(available)
        for part in PARTS:
            files = [f for f in available if f.startswith(f"{part}/") and f.count("/") == 1]
            chosen += [f for f in files if f.endswith((".json", ".txt", ".model"))]
            weights = [f for f in files if f.endswith(".safetensors")]
            # A part that has no such variant is read from its plain weights.
            plain = [f for f in weights if _variant_of(f) is None]
            chosen += [f for f in weights if _variant_of(f) == variant] or plain
        return [f for f in chosen if f in available]

    def read_variant(self, files: Sequence[str]) -> str | None:
        """The weight files to read of a checkpoint's files, by those of its UNet.

        The machine has no say, so that a checkpoint is the same weights on each.
        """
        if self.variant != "auto":
            return self.variant
        there = {_variant_of(f) for f in files if fnmatchcase(f, "unet/*.safetensors")}
        enough = self.dtype in ("auto", "float16") or None not in there
        return "fp16" if "fp16" in there and enough else None

    def identity(self) -> dict[str, Any]:
        """All that changes the image: settings of a grounding that isn't used stay out."""
        unused = set()
        if self.grounding != "ip_adapter":
            unused.add("ip_adapter")
        if self.grounding != "img2img":
            unused.add("strength")
        if self.grounding != "prompt":
            unused.add("example_template")
        return {name: value for name, value in super().identity().items() if name not in unused}


def _variant_of(weights: str) -> str | None:
    """The variant in a file's name: fp16 of `unet/model.fp16-00001-of-00002.safetensors`."""
    marks = PurePosixPath(weights).name.split(".")[1:-1]
    return marks[0].split("-")[0] if marks else None
