"""Encoders of transformers: a vision model, a text model, or a dual one such as CLIP or SigLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class TransformersSettings(EncoderSettings):
    """A model of transformers, by folder or hub repository."""

    kind: Literal["transformers"] = "transformers"
    model: str = Field(description="folder or hub repository, e.g. facebook/dinov2-base")
    revision: str | None = Field(default=None, description="revision of the hub repository")
    modalities: list[Literal["image", "text"]] = Field(
        default=["image", "text"], min_length=1, description="what the model encodes"
    )
    pooling: Literal["auto", "pooler", "cls", "mean"] = Field(
        default="auto",
        description="one vector from many: auto is the first token of pictures and the mean over "
        "tokens of texts; dual models have their own",
    )
    max_length: int | None = Field(default=None, ge=1, description="most tokens of a text")
    trust_remote_code: bool = Field(default=False, description="run code that comes with the model")

    def models(self) -> dict[str, tuple[str, str | None]]:
        """Role to (hub repository or folder, revision)."""
        return {"model": (self.model, self.revision)}


class TransformersEncoder(BatchedEncoder):
    """One or two modalities by `AutoModel`.

    Parameters
    ----------
    settings : TransformersSettings
    paths : mapping
        "model": folder with config, safetensors weights, and the processor's files.
    """

    Settings = TransformersSettings

    def __init__(self, settings: TransformersSettings, paths: Mapping[str, Path]) -> None:
        self.settings: TransformersSettings = settings
        self.folder = Path(paths["model"])
        self._model: Any = None

    @property
    def shared_space(self) -> bool:
        return len(set(self.settings.modalities)) == 2

    def load(self) -> None:
        """Loads model and processors; does nothing the second time."""
        if self._model is not None:
            return
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        self._device, self._dtype = placement(self.settings)
        options: dict[str, Any] = {
            "local_files_only": True,
            "trust_remote_code": self.settings.trust_remote_code,
        }
        model = AutoModel.from_pretrained(
            self.folder, use_safetensors=True, dtype=self._dtype, **options
        )
        if self.shared_space and not hasattr(model, "get_image_features"):
            raise ValueError(
                f"encoder.modalities: {type(model).__name__} does not encode both images and texts"
            )
        if "image" in self.settings.modalities:
            self._processor = AutoImageProcessor.from_pretrained(self.folder, **options)
        if "text" in self.settings.modalities:
            self._tokenizer = AutoTokenizer.from_pretrained(self.folder, **options)
        self._model = model.to(self._device).eval()
        try:
            for modality in self.settings.modalities:
                self._try(modality)
        except BaseException:
            self.close()
            raise

    def _try(self, modality: Modality) -> None:
        """Embed one item: AutoModel takes many a model that embeds nothing, or not both halves."""
        import torch
        from PIL import Image

        item = "a" if modality == "text" else Image.new("RGB", (64, 64))
        what = f"encoder.model: {type(self._model).__name__} of {self.settings.model}"
        try:
            with torch.inference_mode():
                found = self._forward(
                    self._stack([self._prepare(item, modality)], modality), modality
                )
            width = found.shape[-1] if found.ndim == 2 else None
        except Exception as error:
            raise ValueError(f"{what} does not embed {modality}s: {error}") from error
        if width != self.dimension(modality):
            raise ValueError(
                f"{what} embeds {modality}s in shape {tuple(found.shape)}, where its config says"
                f" {self.dimension(modality)}"
            )

    def close(self) -> None:
        """Frees the model."""
        self._model = None

    def dimension(self, modality: Modality) -> int:
        """Width of the embeddings; read from the config, without the weights."""
        self._check(modality)
        config = self._config()
        if self.shared_space:
            tower = getattr(config, "vision_config" if modality == "image" else "text_config", None)
            # SigLIP's towers name what they project to, CLIP's model does.
            names = [(config, "projection_dim"), (tower, "projection_size"), (tower, "hidden_size")]
        else:
            names = [(config, "hidden_size"), (config, "dim"), (config, "d_model")]
        width = next((w for of, name in names if (w := getattr(of, name, None)) is not None), None)
        if width is None:
            raise ValueError(f"{self.folder / 'config.json'}: names no width of the embeddings")
        return int(width)

    def _config(self) -> Any:
        """The model's config, with its kind's defaults for what the file leaves out."""
        if self._model is not None:
            return self._model.config
        from transformers import AutoConfig

        trust = self.settings.trust_remote_code
        return AutoConfig.from_pretrained(
            self.folder, local_files_only=True, trust_remote_code=trust
        )

    def _check(self, modality: Modality) -> None:
        if modality not in self.settings.modalities:
            raise ValueError(
                f"encoder.modalities: {self.settings.model} does not encode {modality}"
            )

    def _prepare(self, item: Any, modality: Modality) -> Any:
        self._check(modality)
        if modality == "text":
            return item
        image = open_image(item, self.jpeg_side)
        return self._processor(images=image, return_tensors="pt")["pixel_values"][0]

    @property
    def jpeg_side(self) -> int | None:
        """The shorter side that a JPEG may be decoded at; None where the processor says none."""
        size = getattr(self._processor, "size", None)
        sides = [side for side in dict(size or {}).values() if isinstance(side, int)]
        if not sides or not getattr(self._processor, "do_resize", False):
            return None
        return JPEG_MARGIN * max(sides)

    def _stack(self, prepared: Sequence[Any], modality: Modality) -> Any:
        import torch

        if modality == "image":
            return {"pixel_values": torch.stack(list(prepared)).to(self._device, self._dtype)}
        # SigLIP's towers were trained on texts padded to the full length.
        fixed = self.shared_space and "siglip" in type(self._model).__name__.lower()
        tokens = self._tokenizer(
            list(prepared),
            padding="max_length" if fixed else True,
            truncation=True,
            max_length=self._most_tokens(),
            return_tensors="pt",
        )
        return tokens.to(self._device)

    def _most_tokens(self) -> int:
        if self.settings.max_length is not None:
            return self.settings.max_length
        config = self._model.config
        positions = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
        # Tokenizers without a limit of their own say 1e30.
        return int(min(self._tokenizer.model_max_length, positions or 512))

    def _forward(self, stacked: Any, modality: Modality) -> Any:
        if self.shared_space:
            method = "get_image_features" if modality == "image" else "get_text_features"
            features = getattr(self._model, method)(**stacked)
            return getattr(features, "pooler_output", features)
        output = self._model(**stacked)
        pooling = self.settings.pooling
        if pooling == "auto":
            pooling = "cls" if modality == "image" else "mean"
        if pooling == "pooler":
            return output.pooler_output
        hidden = output.last_hidden_state
        if pooling == "cls":
            return hidden[:, 0]
        if modality == "image":
            return hidden.mean(dim=1)
        mask = stacked["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1)
