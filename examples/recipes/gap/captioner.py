"""The recipe's captioner as a part of one's own: it knows photographs, and can take words from examples.

    captioner:
      kind: "examples.recipes.gap.captioner:PhotographCaptioner"
      model: ../../../data/gap/captioner   # what examples.recipes.gap.train wrote

Prompts, budget and draws are those of `blip2`, whose settings it takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from generators.blip2 import Blip2Captioner
from generators.blip2_settings import Blip2Settings

if TYPE_CHECKING:
    import torch


# Pictures of which is kept what was seen: some 40 kB each.
MOST_LOOKED_AT = 8192


class PhotographCaptionerSettings(Blip2Settings):
    """What may stand under `captioner`: all that `blip2` takes."""

    kind: str = Field(description="The address of the class.")  # type: ignore[assignment]
    model: str = Field(description="Folder that `examples.recipes.gap.train` wrote.")


class PhotographCaptioner(Blip2Captioner):
    """Captions by a `SightedModel`."""

    Settings = PhotographCaptionerSettings

    def __init__(self, settings: Any, paths: Mapping[str, Path]) -> None:
        super().__init__(settings, paths)
        self._looked_at: dict[bytes, torch.Tensor] = {}

    def _read(self, folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
        from examples.recipes.gap.eyes import open_eyes
        from examples.recipes.gap.sighted import open_sighted

        model, tokenizer = open_sighted(folder, dtype)
        self._eyes = open_eyes(model.shape.eyes)
        # A part of it, so that it moves with it and counts as memory.
        model.eyes = self._eyes.network
        return model, SimpleNamespace(tokenizer=tokenizer)

    def _image_features(self, rows: Sequence[int]) -> torch.Tensor:
        """What stands before each row's prompt, [rows, 1 + cells, width]; a picture is looked at once."""
        import torch

        from examples.recipes.gap.eyes import stacked

        pictures = [self._eyes.pixels(self._requests[row].image) for row in rows]
        names = [hashlib.sha256(picture.tobytes()).digest() for picture in pictures]
        new = {n: p for n, p in zip(names, pictures, strict=True) if n not in self._looked_at}
        if new:
            pixels = stacked(list(new.values()), next(self._eyes.network.parameters()))
            self._looked_at.update(zip(new, self._eyes.cells(pixels).half(), strict=True))
        found = torch.stack([self._looked_at[name] for name in names])
        # The oldest go first: an evaluation asks for each row again, variant by variant.
        while len(self._looked_at) > MOST_LOOKED_AT:
            del self._looked_at[next(iter(self._looked_at))]
        return self._model.seen(found)
