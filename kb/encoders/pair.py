"""Two single-modality encoders side by side; their embeddings share no space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from kb.embeddings import MODALITIES, Modality
from kb.encoders.base import Encoder
from kb.encoders.open_clip import OpenClipEncoder, OpenClipSettings
from kb.encoders.transformers import TransformersEncoder, TransformersSettings

Part = Annotated[OpenClipSettings | TransformersSettings, Field(discriminator="kind")]


class PairSettings(BaseModel):
    """One encoder for images, another for texts."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["pair"] = "pair"
    image: Part = Field(description="settings of the image encoder")
    text: Part = Field(description="settings of the text encoder")

    def models(self) -> dict[str, tuple[str, str | None]]:
        """The modality as role to (hub repository or folder, revision)."""
        return {"image": self.image.models()["model"], "text": self.text.models()["model"]}

    def files(self, role: str, available: Sequence[str]) -> Sequence[str] | None:
        """Choose as that modality's encoder does, by its `files`; None where it has no choice."""
        choose = getattr(getattr(self, role), "files", None)
        return None if choose is None else choose("model", available)

    def identity(self) -> dict[str, Any]:
        """The settings that change the embeddings."""
        return {"kind": self.kind, "image": self.image.identity(), "text": self.text.identity()}


class PairEncoder:
    """Joins an image encoder and a text encoder.

    Parameters
    ----------
    settings : PairSettings
    paths : mapping
        "image" and "text": the folder of each model.
    """

    Settings = PairSettings
    shared_space = False

    def __init__(self, settings: PairSettings, paths: Mapping[str, Path]) -> None:
        self.settings = settings
        self.parts: dict[Modality, Encoder] = {
            modality: _encoder(getattr(settings, modality), paths[modality])
            for modality in MODALITIES
        }

    def load(self) -> None:
        """Loads both models."""
        for part in self.parts.values():
            part.load()

    def close(self) -> None:
        """Frees both models."""
        for part in self.parts.values():
            part.close()

    def dimension(self, modality: Modality) -> int:
        """Width of a modality's embeddings; the two may differ."""
        return self.parts[modality].dimension(modality)

    def encode(self, items: Iterable[Any], modality: Modality) -> np.ndarray:
        """Unit embeddings, float32 [n, dimension(modality)], by that modality's encoder."""
        return self.parts[modality].encode(items, modality)


def _encoder(settings: OpenClipSettings | TransformersSettings, path: Path) -> Encoder:
    if isinstance(settings, OpenClipSettings):
        return OpenClipEncoder(settings, {"model": path})
    return TransformersEncoder(settings, {"model": path})
