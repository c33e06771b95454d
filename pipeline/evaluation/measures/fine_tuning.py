"""Downstream worth by fine-tuning: a whole open_clip model learns from completed data."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config.evaluation import FineTuningSettings
from pipeline.dataset.images import MAX_PIXELS, UndecodableImage, decode
from pipeline.evaluation.measures.downstream import (
    Batches,
    Downstream,
    Untouched,
    contrast,
    share_of_rate,
)
from pipeline.evaluation.protocol.masked import Pairs
from pipeline.evaluation.results.ranked import Ranks
from pipeline.storage.digests import digest

if TYPE_CHECKING:
    import torch

    # Decoded pictures [n, 3, side, side], and the tokens of every caption of each.
    Prepared = tuple[torch.Tensor, list[torch.Tensor]]

logger = logging.getLogger(__name__)

CLIP_NORM = 1.0


class FineTuning(Downstream):
    """Fine-tunes all of a checkpoint.

    Parameters
    ----------
    settings : FineTuningSettings
    start : Path
        Folder of the open_clip checkpoint.
    revision : str
        What the checkpoint is known by.
    test : Untouched
    folder : Path
        Where results are kept, by content.
    most_pixels : int
        Of a picture that is decoded.
    """

    def __init__(
        self,
        settings: FineTuningSettings,
        start: Path,
        revision: str,
        test: Untouched,
        folder: Path,
        most_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__({"settings": settings.identity(), "start": revision}, test, folder)
        self.settings = settings
        self.start = start
        self.most_pixels = most_pixels
        # By what is asked again for every variant: which pictures can be decoded.
        self._decodes: dict[str, bool] = {}
        self._test: tuple[torch.Tensor, torch.Tensor] | None = None

    def _load(self) -> tuple[Any, Any, Any]:
        """Model, preprocessing and tokenizer of the start checkpoint."""
        from kb.encoders.open_clip import OpenClipEncoder, OpenClipSettings

        device = self.settings.device
        encoder = OpenClipEncoder(
            OpenClipSettings(model=str(self.start), device=device, dtype="float32"),
            {"model": self.start},
        )
        return encoder.parts()

    def usable(self, train: Pairs) -> Pairs:
        """The pairs whose picture can be decoded."""
        kept = [number for number, data in enumerate(train.images) if self._sound(data)]
        if len(kept) == len(train):
            return train
        logger.warning("%d training pairs are left out: undecodable", len(train) - len(kept))
        return Pairs([train.images[n] for n in kept], [train.texts[n] for n in kept])

    def _sound(self, data: bytes) -> bool:
        key = digest(data)
        if key not in self._decodes:
            self._decodes[key] = decodes(data, self.most_pixels)
        return self._decodes[key]

    def prepare(self, train: Pairs) -> Prepared:
        _, _, tokenizer = self._load()
        tokens = [tokenizer(list(captions)) for captions in train.texts]
        return self._pictures(train.images), tokens

    def _pictures(self, images: Any) -> torch.Tensor:
        """Decoded and preprocessed [n, 3, side, side]."""
        import torch

        from kb.encoders.base import open_image

        _, preprocess, _ = self._load()
        return torch.stack(
            [preprocess(open_image(decode(data, self.most_pixels))) for data in images]
        )

    def learn(
        self, prepared: Prepared, seed: int, steps: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        import torch

        settings = self.settings
        pictures, tokens = prepared
        model, _, _ = self._load()
        device = next(model.parameters()).device
        generator = np.random.default_rng([seed, 1])
        torch.manual_seed(seed)
        # Vanishing gradients of the first steps are subnormal, which slows products ten times.
        torch.set_flush_denormal(True)
        # A third off the time of a convolutional tower on a CPU.
        model.to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
            eps=1e-6,
            weight_decay=settings.weight_decay,
        )
        batches = Batches(len(pictures), settings.batch_size, generator)
        for step in range(steps or settings.steps):
            rows = batches.draw()
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * share_of_rate(step, settings)
            chosen = [tokens[row][generator.integers(len(tokens[row]))] for row in rows]
            shifted = _shift(pictures[torch.from_numpy(rows)], settings.shift, generator)
            shifted = shifted.to(device, memory_format=torch.channels_last)
            image = model.encode_image(shifted, normalize=True)
            text = model.encode_text(torch.stack(chosen).to(device), normalize=True)
            loss = contrast(image, text, model.logit_scale)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
        return self._embed(model.eval())

    def untrained(self) -> Ranks:
        """Ranks of the start checkpoint as it is."""
        return self.test.ranks([self.test.rank(*self._embed(self._load()[0]))])

    def _embed(self, model: Any) -> tuple[np.ndarray, np.ndarray]:
        """The test pictures and the test texts."""
        import torch

        if self._test is None:
            _, _, tokenizer = self._load()
            self._test = self._pictures(self.test.images), tokenizer(self.test.texts)
        device = next(model.parameters()).device
        halves = []
        with torch.inference_mode():
            for items, encode in zip(
                self._test, (model.encode_image, model.encode_text), strict=True
            ):
                parts = [encode(part.to(device), normalize=True) for part in items.split(64)]
                halves.append(torch.cat(parts).float().cpu().numpy())
        return halves[0], halves[1]


def decodes(data: bytes, most_pixels: int) -> bool:
    """Whether a picture can be decoded."""
    try:
        decode(data, most_pixels)
    except UndecodableImage:
        return False
    return True


def _shift(pictures: torch.Tensor, share: float, generator: np.random.Generator) -> torch.Tensor:
    """Each picture moved by up to a share of its side, its edge repeated."""
    import torch
    from torch.nn import functional

    height, width = pictures.shape[-2:]
    most = round(share * max(height, width))
    if most == 0:
        return pictures
    wide = functional.pad(pictures, (most,) * 4, mode="replicate")
    places = generator.integers(0, 2 * most + 1, (len(pictures), 2))
    return torch.stack(
        [
            picture[:, top : top + height, left : left + width]
            for picture, (top, left) in zip(wide, places.tolist(), strict=True)
        ]
    )
