"""Settings of the captioner that asks a chat model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from generators.base import Needs
from generators.checkpoints import CheckpointSettings
from generators.sampling import SamplingSettings


class VlmSettings(SamplingSettings, CheckpointSettings):
    """Settings of `VlmCaptioner`."""

    kind: Literal["vlm"] = Field("vlm", description="A chat image-text model of transformers.")
    model: str = Field(
        "Qwen/Qwen2.5-VL-3B-Instruct", description="Model id, or a folder in the same format."
    )
    trust_remote_code: bool = Field(
        False,
        description="Run Python code that lies beside the weights; only for models you trust.",
    )
    prompt: str = Field(
        "Please write a caption of the image.",
        min_length=1,
        description="What is asked with every image.",
    )
    system: str | None = Field(None, description="System message ahead of the turns, if any.")
    longest_side: int = Field(
        768,
        ge=16,
        description="Images are shrunk to this many pixels before the model's own steps.",
    )
    max_prompt_tokens: int | None = Field(
        None, ge=1, description="Most tokens of the turns; None takes what the model has room for."
    )
    background: str = Field("white", description="What shows through a transparent image.")

    def needs(self) -> Needs:
        """Both halves: each example is a turn of the conversation."""
        return Needs(side=self.longest_side)
