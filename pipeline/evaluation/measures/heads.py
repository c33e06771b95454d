"""Downstream worth by projection heads: two matrices learn on frozen towers, in seconds on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kb.embeddings import Modality
from pipeline.config.evaluation import HeadsSettings
from pipeline.evaluation.measures.downstream import (
    Batches,
    Downstream,
    Untouched,
    contrast,
    share_of_rate,
)
from pipeline.evaluation.protocol.masked import Pairs
from pipeline.evaluation.results.ranked import Ranks

if TYPE_CHECKING:
    import torch

Embed = Callable[[Modality, Any], tuple[np.ndarray, np.ndarray]]
# CLIP's inverse temperature to begin with (Radford et al. 2021, section 2.4).
FIRST_SCALE = 1 / 0.07


class Heads(Downstream):
    """Learns a projection of each modality by the contrastive loss, on embeddings that stay.

    Parameters
    ----------
    settings : HeadsSettings
    embed : callable
        Unit embeddings [n, d] of a modality's contents, encoded pictures or rows of captions, and
        which of them there are, bool [n].
    towers : dict
        What these embeddings depend on.
    shared_space : bool
        Whether those of both modalities can be compared as they are.
    test : Untouched
    folder : Path
        Where results are kept, by content.
    """

    def __init__(
        self,
        settings: HeadsSettings,
        embed: Embed,
        towers: dict[str, Any],
        shared_space: bool,
        test: Untouched,
        folder: Path,
    ) -> None:
        super().__init__({"settings": settings.identity(), "towers": towers}, test, folder)
        self.settings = settings
        self.shared_space = shared_space
        self._embed = embed
        self._test: tuple[np.ndarray, np.ndarray] | None = None

    def usable(self, train: Pairs) -> Pairs:
        """The pairs of which the towers take both halves, with those captions that they take."""
        _, pictures = self._embed("image", train.images)
        _, texts = self._embed("text", [(caption,) for row in train.texts for caption in row])
        if pictures.all() and texts.all():
            return train
        taken = iter(texts)
        captions = [[caption for caption in row if next(taken)] for row in train.texts]
        kept = [n for n, row in enumerate(captions) if row and pictures[n]]
        return Pairs([train.images[n] for n in kept], [captions[n] for n in kept])

    def prepare(self, train: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pictures [n, d], all captions [m, e], and where each picture's begin [n + 1]."""
        images, _ = self._embed("image", train.images)
        captions = [caption for row in train.texts for caption in row]
        begins = np.cumsum([0, *(len(row) for row in train.texts)])
        return images, self._embed("text", [(caption,) for caption in captions])[0], begins

    def learn(
        self,
        prepared: tuple[np.ndarray, np.ndarray, np.ndarray],
        seed: int,
        steps: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        import torch

        from kb.device import resolve_device

        settings = self.settings
        images, texts, begins = prepared
        device = resolve_device(settings.device)
        generator = np.random.default_rng([seed, 1])
        torch.manual_seed(seed)
        sides = [_Side(rows, settings.width, device) for rows in (images, texts)]
        scale = torch.tensor(math.log(FIRST_SCALE), device=device, requires_grad=True)
        optimizer = torch.optim.AdamW(
            [
                {"params": [side.head for side in sides], "weight_decay": settings.weight_decay},
                {"params": [scale], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
        )
        batches = Batches(len(images), settings.batch_size, generator)
        for step in range(steps or settings.steps):
            rows = batches.draw()
            # One caption of each picture.
            told = generator.integers(begins[rows], begins[rows + 1])
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * share_of_rate(step, settings)
            image, text = (
                side.project(side.rows[torch.from_numpy(chosen).to(device)], settings.dropout)
                for side, chosen in zip(sides, (rows, told), strict=True)
            )
            loss = contrast(image, text, scale)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            halves = [
                side.project(side.standardised(rows)).cpu().numpy()
                for side, rows in zip(sides, self._tested(), strict=True)
            ]
        return halves[0], halves[1]

    def untrained(self) -> Ranks | None:
        """Ranks by the towers as they are, where they share a space."""
        if not self.shared_space:
            return None
        return self.test.ranks([self.test.rank(*self._tested())])

    def _tested(self) -> tuple[np.ndarray, np.ndarray]:
        """The test pictures and the test texts by the towers."""
        if self._test is None:
            texts: Sequence[tuple[str]] = [(text,) for text in self.test.texts]
            self._test = self._embed("image", self.test.images)[0], self._embed("text", texts)[0]
        return self._test


class _Side:
    """A modality's training rows, standardised, and its head."""

    def __init__(self, rows: np.ndarray, width: int, device: str) -> None:
        import torch

        self._device = device
        self._mean = rows.mean(axis=0)
        # What never varies says nothing, and must not become noise.
        self._deviation = np.maximum(rows.std(axis=0), 1e-3 * rows.std() + 1e-6)
        self.rows = self.standardised(rows)
        self.head = torch.empty(rows.shape[1], width, device=device)
        torch.nn.init.normal_(self.head, std=rows.shape[1] ** -0.5)
        self.head.requires_grad_()

    def standardised(self, rows: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy((rows - self._mean) / self._deviation).float().to(self._device)

    def project(self, rows: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
        """Unit rows in the common space."""
        from torch.nn import functional

        return functional.normalize(functional.dropout(rows, dropout) @ self.head, dim=-1)
