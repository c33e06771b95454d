"""An encoder of one's own, named in a config as ``examples.own_encoder:ColourWordEncoder``.

It has no model: a picture is the shares of its colours in a grid of cells, a text the counts of its
words. Whatever an encoder of yours does, it needs what is here: a ``Settings`` class with ``kind``,
``models`` and ``identity``, and ``shared_space``, ``load``, ``close``, ``dimension`` and ``encode``.

    encoder:
      kind: examples.own_encoder:ColourWordEncoder
      cells: 3

For one modality alone, beside another encoder for the other:

    encoder:
      kind: pair
      image: {kind: examples.own_encoder:ColourWordEncoder}
      text: {kind: transformers, model: sentence-transformers/all-MiniLM-L6-v2, modalities: [text]}
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from kb.embeddings import normalise
from kb.encoders.base import open_image

# Levels of each of red, green and blue.
LEVELS = 4


class ColourWordSettings(BaseModel):
    """What may stand under ``encoder`` in the config; other keys are refused."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(description="The address of the class.")
    cells: int = Field(default=2, ge=1, le=8, description="Rows and columns of the grid.")
    words: int = Field(default=512, ge=8, description="Places that words are hashed to.")

    def models(self) -> dict[str, tuple[str, str | None]]:
        """Role -> (hub id or folder, revision); each folder arrives in ``paths`` by its role."""
        return {}

    def identity(self) -> dict[str, Any]:
        """What the embeddings depend on: when it changes, everything is embedded anew."""
        return self.model_dump(mode="json")


class ColourWordEncoder:
    """Pictures by their colours, texts by their words."""

    Settings = ColourWordSettings
    # Whether a picture's embedding can be compared with a text's: not these.
    shared_space = False

    def __init__(self, settings: ColourWordSettings, paths: Mapping[str, Path]) -> None:
        self.settings = settings

    def load(self) -> None:
        """Nothing to load. A model would be loaded here, once, from its folder."""

    def close(self) -> None:
        """Nothing to free."""

    def dimension(self, modality: str) -> int:
        """Width of a modality's embeddings, known before anything is loaded."""
        return self.settings.cells**2 * LEVELS**3 if modality == "image" else self.settings.words

    def encode(self, items: Iterable[Any], modality: str) -> np.ndarray:
        """Unit rows in the order of the items, float32 [n, dimension(modality)].

        Texts are strings. Pictures are PIL images, the bytes of a file, or paths, and come from a
        generator: take a few at a time.
        """
        one = self._picture if modality == "image" else self._text
        rows = [one(item) for item in items]
        if not rows:
            return np.empty((0, self.dimension(modality)), np.float32)
        return normalise(np.stack(rows))

    def _picture(self, item: Any) -> np.ndarray:
        # `open_image` lays transparent pixels on white and bounds what is very long and thin.
        side = 16 * self.settings.cells
        small = open_image(item).resize((side, side), Image.Resampling.BOX)
        levels = np.asarray(small, np.int64) * LEVELS // 256
        colour = levels @ [LEVELS**2, LEVELS, 1]
        cell = np.arange(side) // 16
        place = (cell[:, None] * self.settings.cells + cell) * LEVELS**3 + colour
        # Roots, so that the cosine of two is the overlap of their shares (Bhattacharyya 1943).
        return np.sqrt(np.bincount(place.ravel(), minlength=self.dimension("image")))

    def _text(self, text: str) -> np.ndarray:
        words = re.findall(r"\w+", text.lower()) or [text]
        places = [zlib.crc32(word.encode()) % self.settings.words for word in words]
        return np.bincount(places, minlength=self.settings.words).astype(np.float32)
