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

from generators.base import Candidate
from generators.batching import Failed
from generators.blip2 import Blip2Captioner
from generators.blip2_settings import Blip2Settings
from generators.prompts import token_count

if TYPE_CHECKING:
    import torch


# Pictures of which is kept what was seen: some 40 kB each.
MOST_LOOKED_AT = 8192


class PhotographCaptionerSettings(Blip2Settings):
    """What may stand under `captioner`: all that `blip2` takes."""

    kind: str = Field(description="The address of the class.")  # type: ignore[assignment]
    model: str = Field(description="Folder that `examples.recipes.gap.train` wrote.")


class PhotographCaptioner(Blip2Captioner):
    """Captions by a `SightedDecoder`."""

    Settings = PhotographCaptionerSettings

    def __init__(self, settings: Any, paths: Mapping[str, Path]) -> None:
        super().__init__(settings, paths)
        self._looked_at: dict[bytes, torch.Tensor] = {}

    def _read(self, folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
        from transformers import PreTrainedTokenizerFast

        from examples.recipes.gap.decoder import SightedDecoder
        from examples.recipes.gap.eyes import open_eyes

        model = SightedDecoder.from_folder(folder)
        self._eyes = open_eyes(model.shape.eyes)
        # A part of it, so that it moves with it and counts as memory.
        model.eyes = self._eyes.network
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        return model.to(dtype), SimpleNamespace(tokenizer=tokenizer)

    def _prepare(self) -> None:
        room = self._prompt_limit()
        wanted = token_count(self._processor.tokenizer, self.settings.template)
        if wanted > room:
            raise ValueError(
                f"template of {wanted} tokens does not fit; the model has room for {room} beside"
                f" max_new_tokens {self.settings.max_new_tokens}"
            )

    def _prompt_limit(self) -> int:
        shape = self._model.shape
        room = shape.positions - shape.cells - self.settings.max_new_tokens
        most: int | None = self.settings.max_prompt_tokens
        return room if most is None else min(room, most)

    def _image_features(self, rows: Sequence[int]) -> torch.Tensor:
        """What is seen of each row's picture, [rows, cells, channels]; looked at once."""
        import torch

        from examples.recipes.gap.eyes import stacked

        pictures = [self._eyes.pixels(self._requests[row].image) for row in rows]
        names = [hashlib.sha256(picture.tobytes()).digest() for picture in pictures]
        new = {n: p for n, p in zip(names, pictures, strict=True) if n not in self._looked_at}
        if new:
            pixels = stacked(list(new.values()), next(self._model.parameters()))
            self._looked_at.update(zip(new, self._eyes.cells(pixels).half(), strict=True))
        found = torch.stack([self._looked_at[name] for name in names])
        # The oldest go first: an evaluation asks for each row again, variant by variant.
        while len(self._looked_at) > MOST_LOOKED_AT:
            del self._looked_at[next(iter(self._looked_at))]
        return found.to(next(self._model.parameters()).dtype)

    def _draw(self, jobs: list[Any]) -> list[Candidate | Failed]:
        tokenizer = self._processor.tokenizer
        rows = list(dict.fromkeys(job.row for job in jobs))
        prompts = {job.row: job.prompt for job in jobs}
        tokens, sound = self._model.speak(
            self._image_features(rows),
            [tokenizer(prompts[row].text)["input_ids"] for row in rows],
            [rows.index(job.row) for job in jobs],
            [job.seed for job in jobs],
            self.settings,
        )
        return self._candidates(jobs, tokens, sound)
