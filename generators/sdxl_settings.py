"""Settings of the SDXL image generator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from generators.diffusion_settings import DiffusionSettings


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


class SdxlSettings(DiffusionSettings):
    """Settings of `SdxlImageGenerator`."""

    kind: Literal["sdxl"] = Field("sdxl", description="A Stable Diffusion XL checkpoint.")
    model: str = Field(
        "stabilityai/stable-diffusion-xl-base-1.0",
        description="Model id, or a folder in the same format.",
    )
    grounding: Literal["none", "prompt", "img2img", "ip_adapter"] = Field(
        "img2img",
        description="How the example grounds the image: not, by its caption, or by its image.",
    )
    steps: int = Field(30, ge=1, description="Denoising steps.")
    guidance_scale: float = Field(
        6.0, ge=0, description="How strongly the image follows the text; 1 and less turns it off."
    )
    ip_adapter: IPAdapterSettings = Field(
        default_factory=IPAdapterSettings,
        description="The adapter of that grounding.",
    )

    def models(self) -> dict[str, tuple[str, str | None]]:
        """Those of every pipeline, and the adapter where the grounding uses it."""
        models = super().models()
        if self.grounding == "ip_adapter":
            models["ip_adapter"] = (self.ip_adapter.model, self.ip_adapter.revision)
        return models

    def files(self, role: str, available: Sequence[str]) -> list[str]:
        """As of every pipeline; of the adapter's repository, one adapter and its encoder."""
        if role != "ip_adapter":
            return super().files(role, available)
        adapter, encoder = self.ip_adapter, PurePosixPath(self.ip_adapter.image_encoder)
        read = {
            str(PurePosixPath(adapter.subfolder) / adapter.weight_name),
            str(encoder / "config.json"),
            str(encoder / "model.safetensors"),
        }
        return [file for file in available if file in read]

    def identity(self) -> dict[str, Any]:
        """All that changes the image."""
        identity = super().identity()
        if self.grounding != "ip_adapter":
            del identity["ip_adapter"]
        return identity
