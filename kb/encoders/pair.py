"""Two single-modality encoders side by side; their embeddings share no space."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny

from kb.embeddings import MODALITIES, Modality
from kb.encoders import ENCODERS
from kb.encoders.base import Encoder

# The role of the one model that most encoders have.
ONLY = "model"


def encoder_class(kind: str) -> Any:
    """The class of a registered kind or of `package.module:ClassName`.

    Raises
    ------
    ValueError
        It can't be imported, has no pydantic `Settings`, or is a pair itself.
    """
    module, colon, name = ENCODERS.get(kind, kind).partition(":")
    single = ", ".join(other for other in ENCODERS if other != "pair")
    if not colon or kind == "pair":
        raise ValueError(f"kind must be one of {single}, or package.module:Class; got {kind!r}")
    # A class of one's own may lie in the folder where the command was given, as with `python -m`.
    if kind not in ENCODERS and (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"kind {kind!r} can't be imported: {error}") from None
    settings = getattr(found, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        raise ValueError(f"kind {kind!r} needs a pydantic class `Settings` as an attribute")
    for part, names in (
        (found, ("load", "close", "dimension", "encode")),
        (settings, ("models", "identity")),
    ):
        if lacking := [name for name in names if not hasattr(part, name)]:
            raise ValueError(f"{part.__name__} of kind {kind!r} needs a method `{lacking[0]}`")
    return found


def _settings(values: Any) -> Any:
    """Settings of one encoder, validated by the class that their `kind` names."""
    if isinstance(values, BaseModel):
        return values
    if not isinstance(values, Mapping) or "kind" not in values:
        raise ValueError("settings of an encoder with its kind are required")
    return encoder_class(str(values["kind"])).Settings(**values)


Single = Annotated[SerializeAsAny[BaseModel], BeforeValidator(_settings)]


class PairSettings(BaseModel):
    """One encoder for images, another for texts."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["pair"] = "pair"
    image: Single = Field(description="settings of the image encoder")
    text: Single = Field(description="settings of the text encoder")

    def of(self, modality: Modality) -> Any:
        """Settings of one of the two encoders."""
        return self.image if modality == "image" else self.text

    def models(self) -> dict[str, tuple[str, str | None]]:
        """Role to (hub repository or folder, revision).

        A role is the modality, where its encoder has one model by the role "model", and otherwise
        the modality, a point, and the encoder's own role.
        """
        return {
            _role(m, own): model for m in MODALITIES for own, model in self.of(m).models().items()
        }

    def files(self, role: str, available: Sequence[str]) -> Sequence[str] | None:
        """Choose as that modality's encoder does, by its `files`; None where it has no choice."""
        modality, _, own = role.partition(".")
        choose = getattr(getattr(self, modality), "files", None)
        return None if choose is None else choose(own or ONLY, available)

    def identity(self) -> dict[str, Any]:
        """The settings that change the embeddings."""
        return {"kind": self.kind, **{m: self.of(m).identity() for m in MODALITIES}}


def _role(modality: Modality, own: str) -> str:
    return modality if own == ONLY else f"{modality}.{own}"


class PairEncoder:
    """Joins an image encoder and a text encoder.

    Parameters
    ----------
    settings : PairSettings
    paths : mapping
        The folder of each model by its role; see `PairSettings.models`.
    """

    Settings = PairSettings
    shared_space = False

    def __init__(self, settings: PairSettings, paths: Mapping[str, Path]) -> None:
        self.settings = settings
        self.encoders: dict[Modality, Encoder] = {}
        for modality in MODALITIES:
            own = settings.of(modality)
            folders = {role: paths[_role(modality, role)] for role in own.models()}
            self.encoders[modality] = encoder_class(str(own.kind))(own, folders)

    def load(self) -> None:
        """Loads both models."""
        for encoder in self.encoders.values():
            encoder.load()

    def close(self) -> None:
        """Frees both models."""
        for encoder in self.encoders.values():
            encoder.close()

    def dimension(self, modality: Modality) -> int:
        """Width of a modality's embeddings; the two may differ."""
        return self.encoders[modality].dimension(modality)

    def encode(self, items: Iterable[Any], modality: Modality) -> np.ndarray:
        """Unit embeddings, float32 [n, dimension(modality)], by that modality's encoder."""
        return self.encoders[modality].encode(items, modality)

    @property
    def jpeg_side(self) -> int | None:
        """The image encoder's, where it has one."""
        side: int | None = getattr(self.encoders["image"], "jpeg_side", None)
        return side

    @property
    def pictures_ahead(self) -> int:
        """The image encoder's, where it has one; else a few."""
        return int(getattr(self.encoders["image"], "pictures_ahead", 4))

    def prepare(self, picture: Any) -> Any:
        """What the image encoder makes of a picture ahead; the picture itself where it can't."""
        made = getattr(self.encoders["image"], "prepare", None)
        return picture if made is None else made(picture)
