"""The recipe's captioner as a part of one's own: it knows photographs, and can take words from examples.

    captioner:
      kind: "examples.recipes.gap.captioner:PhotographCaptioner"
      model: ../../../data/gap/captioner   # what examples.recipes.gap.train wrote

Prompts, budget and draws are those of `blip2`, whose settings it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class PhotographCaptionerSettings(Blip2Settings):
    """What may stand under `captioner`: all that `blip2` takes."""

    kind: str = Field(description="The address of the class.")  # type: ignore[assignment]
    model: str = Field(description="Folder that `examples.recipes.gap.train` wrote.")


class PhotographCaptioner(Blip2Captioner):
    """Captions by a `SightedDecoder`."""

    Settings = PhotographCaptionerSettings

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
        """What is seen of each row's picture, [rows, cells, channels]; looked at once a row."""
        import torch

        from examples.recipes.gap.eyes import stacked

        new = [row for row in rows if row not in self._seen]
        self._seen = {row: self._seen[row] for row in rows if row in self._seen}
        if new:
            pixels = [self._eyes.pixels(self._requests[row].image) for row in new]
            like = next(self._model.parameters())
            self._seen.update(zip(new, self._eyes.cells(stacked(pixels, like)), strict=True))
        return torch.stack([self._seen[row] for row in rows])

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
