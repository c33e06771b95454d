"""What every encoder is: the protocol, and batching with pictures prepared ahead."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Literal, Protocol, cast

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from kb.device import resolve_device
from kb.embeddings import Modality, normalise
from kb.encoders.ahead import ahead, usable_cores

logger = logging.getLogger(__name__)

ImageItem = Image.Image | bytes | str | os.PathLike[str]
# Longer sides to shorter ones, at most, of pictures that are scaled whole.
THINNEST = 32
# A JPEG is decoded at the smallest of its own scales that is this many times the side that it is then
# scaled to. At least; see `tests/benchmarks/kb.md` for what it changes.
JPEG_MARGIN = 2
# Texts are sorted by length among so many batches.
BATCHES_OF_TEXTS = 16
Dtype = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture that an encoder has prepared (`prepare`), to be given to its `encode`."""

    value: Any


class Encoder(Protocol):
    """Pictures and texts to unit embeddings.

    One that can prepare a picture in another thread has also `prepare(picture)`, which gives what its
    `encode` then takes in the picture's place; `pictures_ahead`, how many of these to have ready; and
    `jpeg_side`, the shorter side in pixels that a JPEG may be decoded at (None: its own).

    Attributes
    ----------
    shared_space : bool
        Whether image and text embeddings can be compared with each other.
    """

    @property
    def shared_space(self) -> bool: ...

    def load(self) -> None: ...

    def close(self) -> None: ...

    def dimension(self, modality: Modality) -> int: ...

    def encode(self, items: Iterable[Any], modality: Modality) -> np.ndarray: ...


class EncoderSettings(BaseModel):
    """Settings that every encoder with a model of its own has."""

    model_config = ConfigDict(extra="forbid")

    device: str = Field(default="auto", description="auto: cuda where there is one, else cpu")
    dtype: Dtype = Field(default="auto", description="auto: float16 on cuda, float32 on cpu")
    batch_size: int = Field(
        default=64, ge=1, description="items encoded at once; halved when memory ends"
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        description="threads that decode and prepare pictures ahead; by default one for each core",
    )

    def identity(self) -> dict[str, Any]:
        """The settings that change the embeddings."""
        return self.model_dump(mode="json", exclude={"device", "dtype", "batch_size", "workers"})


class BatchedEncoder:
    """Batches items, prepares the next ones while a batch is encoded, and halves when memory ends.

    A subclass sets `shared_space` and implements `load`, `close`, `dimension`, `_prepare` (one
    item, in a thread), `_stack` (prepared items to model input) and `_forward`.
    """

    settings: EncoderSettings

    def load(self) -> None:
        raise NotImplementedError

    def dimension(self, modality: Modality) -> int:
        raise NotImplementedError

    def _prepare(self, item: Any, modality: Modality) -> Any:
        raise NotImplementedError

    def _stack(self, prepared: Sequence[Any], modality: Modality) -> Any:
        raise NotImplementedError

    def _forward(self, stacked: Any, modality: Modality) -> Any:
        raise NotImplementedError

    def encode(self, items: Iterable[Any], modality: Modality) -> np.ndarray:
        """Unit embeddings of items, in order.

        Parameters
        ----------
        items : iterable
            Strings; or pictures, each a PIL image, the bytes of a file, a path, or what `prepare`
            made of one. May be a generator: at most three batches of pictures are held at once.
        modality : "image" or "text"

        Returns
        -------
        float32 [n, dimension(modality)]
        """
        self.load()
        blocks = []
        source = self._prepared(items, modality)
        size = self.settings.batch_size
        while some := list(islice(source, size * (BATCHES_OF_TEXTS if modality == "text" else 1))):
            blocks.append(self._in_batches(some, modality))
        if not blocks:
            return np.empty((0, self.dimension(modality)), dtype=np.float32)
        return normalise(np.concatenate(blocks))

    def _in_batches(self, prepared: list[Any], modality: Modality) -> np.ndarray:
        """Their embeddings in order; texts of about one length share a batch.

        A batch takes as long as its longest text, which others are padded to.
        """
        order = list(range(len(prepared)))
        if all(isinstance(item, str) for item in prepared):
            order.sort(key=lambda place: len(prepared[place]))
        size = self.settings.batch_size
        parts = [
            self._encode([prepared[place] for place in order[start : start + size]], modality)
            for start in range(0, len(order), size)
        ]
        found = np.concatenate(parts)
        ordered = np.empty_like(found)
        ordered[order] = found
        return ordered

    def prepare(self, picture: ImageItem) -> Prepared:
        """A picture as the model takes it; in any thread, once the encoder is loaded."""
        return Prepared(self._prepare(picture, "image"))

    @property
    def jpeg_side(self) -> int | None:
        """The shorter side that a JPEG may be decoded at; None: its own."""
        return None

    @property
    def pictures_ahead(self) -> int:
        """Pictures to have ready: two batches, so that threads go on while one is encoded."""
        return 2 * self.settings.batch_size

    def _prepared(self, items: Iterable[Any], modality: Modality) -> Iterator[Any]:
        source = iter(items)
        first = list(islice(source, 1))
        everything = chain(first, source)
        if modality == "text" or (first and isinstance(first[0], Prepared)):
            for item in everything:
                yield item.value if isinstance(item, Prepared) else self._prepare(item, modality)
            return
        prepare = partial(self._prepare, modality=modality)
        threads = self.settings.workers or usable_cores()
        yield from ahead(prepare, everything, threads, self.pictures_ahead)

    def _encode(self, prepared: list[Any], modality: Modality) -> np.ndarray:
        import torch

        try:
            with torch.inference_mode():
                embeddings = self._forward(self._stack(prepared, modality), modality)
                return cast(np.ndarray, embeddings.float().cpu().numpy())
        except torch.OutOfMemoryError:
            if len(prepared) == 1:
                raise
            logger.warning("out of memory at %d items a batch: halved", len(prepared))
        # Outside the handler, so that the failed batch's memory is free.
        torch.cuda.empty_cache()
        half = len(prepared) // 2
        parts = (prepared[:half], prepared[half:])
        return np.concatenate([self._encode(part, modality) for part in parts])


def open_image(item: ImageItem, least_side: int | None = None) -> Image.Image:
    """An RGB picture from a PIL image, the bytes of a file, or a path.

    Of one that is thinner than `THINNEST` to one the middle is taken: scaled to an encoder's side by
    its shorter edge, 1 by 20,000 pixels would take gigabytes, of which the middle square is kept.

    Parameters
    ----------
    item : PIL image, bytes or path
        Transparent pixels are laid on white.
    least_side : int, optional
        JPEGs are decoded at the smallest of their built-in scales whose shorter side is at least
        this, which saves most of the work on large photographs.
    """
    if isinstance(item, Image.Image):
        image = item
    else:
        image = Image.open(io.BytesIO(item) if isinstance(item, bytes) else item)
        if least_side is not None and image.format in ("JPEG", "MPO"):
            image.draft("RGB", (least_side, least_side))
    image = _middle(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _middle(image: Image.Image) -> Image.Image:
    width, height = image.size
    most = THINNEST * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, left + min(width, most), top + min(height, most)))


def torch_dtype(dtype: Dtype, device: str) -> Any:
    """The torch dtype that a setting stands for on a device."""
    import torch

    if dtype == "auto":
        return torch.float16 if device.startswith("cuda") else torch.float32
    return getattr(torch, dtype)


def placement(settings: EncoderSettings) -> tuple[str, Any]:
    """Device and torch dtype by the settings."""
    device = resolve_device(settings.device)
    return device, torch_dtype(settings.dtype, device)
