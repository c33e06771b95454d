"""CLIP-like dual encoders by open_clip, from a local folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from kb.embeddings import Modality
from kb.encoders.base import (
    JPEG_MARGIN,
    BatchedEncoder,
    EncoderSettings,
    open_image,
    placement,
)

_PRECISION = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


class OpenClipSettings(EncoderSettings):
    """An open_clip model, by architecture and tag or by folder."""

    kind: Literal["open_clip"] = "open_clip"
    model: str = Field(
        default="ViT-B-32",
        description="an architecture of open_clip with `pretrained`, or a folder (also as "
        "local-dir:FOLDER), or a hub repository (OWNER/NAME, also as hf-hub:OWNER/NAME)",
    )
    pretrained: str | None = Field(default=None, description="open_clip's tag for the weights")
    revision: str | None = Field(default=None, description="revision of the hub repository")

    def models(self) -> dict[str, tuple[str, str | None]]:
        """Role to (hub repository or folder, revision).

        Raises
        ------
        ValueError
            The architecture or tag is unknown, or its weights are not on the hub.
        """
        name = self.model
        for scheme in ("local-dir:", "hf-hub:"):
            if name.startswith(scheme):
                return {"model": (name.removeprefix(scheme), self.revision)}
        if self.pretrained is None:
            if "/" not in name and not Path(name).is_dir():
                raise ValueError(
                    f"encoder.pretrained: needed for the architecture {name!r} (or give "
                    "encoder.model a folder)"
                )
            return {"model": (name, self.revision)}
        import open_clip

        found = open_clip.get_pretrained_cfg(name, self.pretrained)
        if not found:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
            raise ValueError(
                f"encoder.pretrained: {self.pretrained!r} is no tag of {name!r} (tags: {tags})"
            )
        parts = found.get("hf_hub", "").strip("/").split("/")
        if len(parts) < 2:
            raise ValueError(
                f"encoder.pretrained: {name} {self.pretrained} is not on the model hub; download "
                "it, and give encoder.model the folder"
            )
        return {"model": ("/".join(parts[:2]), self.revision)}

    def files(self, role: str, available: Sequence[str]) -> list[str]:
        """Choose open_clip's weights and configuration among the files of a repository."""
        top = [file for file in available if "/" not in file]
        weights = preferred_weights([f for f in top if f.endswith(".safetensors")])
        configuration = [f for f in top if f.endswith((".json", ".txt", ".model"))]
        return configuration + ([weights] if weights else [])


class OpenClipEncoder(BatchedEncoder):
    """Image and text towers of one open_clip model.

    Parameters
    ----------
    settings : OpenClipSettings
    paths : mapping
        "model": folder with open_clip_config.json, a .safetensors file, and the tokenizer's
        files where it has one of its own.
    """

    Settings = OpenClipSettings
    shared_space = True

    def __init__(self, settings: OpenClipSettings, paths: Mapping[str, Path]) -> None:
        self.settings: OpenClipSettings = settings
        self.folder = Path(paths["model"])
        self._model: Any = None

    def load(self) -> None:
        """Loads weights, preprocessing and tokenizer; does nothing the second time."""
        if self._model is not None:
            return
        import open_clip

        self._device, self._dtype = placement(self.settings)
        precision = _PRECISION[str(self._dtype).removeprefix("torch.")]
        name = f"local-dir:{self.folder}"
        with _without_root_warnings():
            model, _, preprocess = open_clip.create_model_and_transforms(
                name,
                load_weights=False,
                pretrained_text=False,
                precision=precision,
                device=self._device,
            )
        open_clip.load_checkpoint(model, str(_weights(self.folder)), strict=True)
        size = model.visual.image_size
        self._side = max(size) if isinstance(size, tuple) else int(size)
        self._preprocess = preprocess
        self._tokenizer = open_clip.get_tokenizer(name)
        self._model = model.eval()

    def parts(self) -> tuple[Any, Any, Any]:
        """The model, its preprocessing of pictures and its tokenizer, for whoever trains it on."""
        self.load()
        return self._model, self._preprocess, self._tokenizer

    def close(self) -> None:
        """Frees the model."""
        self._model = None

    def dimension(self, modality: Modality) -> int:
        """Width of the embeddings, the same for both modalities; read without the weights."""
        config = json.loads((self.folder / "open_clip_config.json").read_text())
        return int(config["model_cfg"]["embed_dim"])

    @property
    def jpeg_side(self) -> int | None:
        """The shorter side that a JPEG may be decoded at, once the model is loaded."""
        return JPEG_MARGIN * self._side

    def _prepare(self, item: Any, modality: Modality) -> Any:
        if modality == "text":
            return item
        return self._preprocess(open_image(item, self.jpeg_side))

    def _stack(self, prepared: Sequence[Any], modality: Modality) -> Any:
        import torch

        if modality == "text":
            return self._tokenizer(list(prepared)).to(self._device)
        return torch.stack(list(prepared)).to(self._device, self._dtype)

    def _forward(self, stacked: Any, modality: Modality) -> Any:
        if modality == "text":
            return self._model.encode_text(stacked)
        return self._model.encode_image(stacked)


@contextmanager
def _without_root_warnings() -> Iterator[None]:
    """open_clip warns of random weights on the root logger; they are loaded right after."""

    def quiet(record: logging.LogRecord) -> bool:
        return "weights" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(quiet)
    try:
        yield
    finally:
        root.removeFilter(quiet)


def _weights(folder: Path) -> Path:
    """The folder's weights, safetensors only."""
    found = preferred_weights(sorted(path.name for path in folder.glob("*.safetensors")))
    if found is None:
        raise ValueError(f"encoder.model: no .safetensors weights in {folder}")
    return folder / found


def preferred_weights(names: Sequence[str]) -> str | None:
    """The weights that open_clip reads among files' names; its own names first."""
    own = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
    return next((name for name in (*own, *names) if name in names), None)
