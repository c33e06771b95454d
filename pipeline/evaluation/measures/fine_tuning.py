"""Downstream worth: an open_clip model fine-tuned on completed data, judged on untouched pairs.

Every variant gets the same start, the same number of steps of the same size, and the same seeds; only
the data differ. A variant with fewer pairs sees them more often.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config.evaluation import DownstreamSettings
from pipeline.dataset.catalog import digest
from pipeline.evaluation.protocol.masked import Pairs
from pipeline.evaluation.results.ranked import Ranks, ranks
from pipeline.storage.files import read_json, write_whole

if TYPE_CHECKING:
    import torch

# Pairs to train on, without which there is no contrast.
FEWEST_PAIRS = 2
CLIP_NORM = 1.0
# CLIP's bound on the inverse temperature (Radford et al. 2021, section 2.5).
MOST_SCALE = 100.0


class Downstream:
    """Fine-tunes and tests; a fine-tuning that was done before is read from `folder`.

    Parameters
    ----------
    settings : DownstreamSettings
    start : Path
        Folder of the open_clip checkpoint.
    revision : str
        What the checkpoint is known by.
    test : Pairs
        One caption each counts: the first.
    folder : Path
        Where results are kept, by content.
    """

    def __init__(
        self,
        settings: DownstreamSettings,
        start: Path,
        revision: str,
        test: Pairs,
        folder: Path,
    ) -> None:
        self.settings = settings
        self.start = start
        self.test = test
        self.folder = folder
        self._common = digest(
            json.dumps(settings.identity(), sort_keys=True), revision, test.digest()
        )
        self._test: tuple[Any, Any] | None = None

    def measure(self, train: Pairs, seeds: int, first: int = 0) -> Ranks:
        """Fine-tune on `train` once a seed, and rank the test pairs.

        Raises
        ------
        ValueError
            Fewer than two pairs to train on.
        """
        if len(train) < FEWEST_PAIRS:
            raise ValueError(f"fine-tuning needs at least {FEWEST_PAIRS} pairs; got {len(train)}")
        content = digest(self._common, train.digest())
        prepared: tuple[torch.Tensor, list[torch.Tensor]] | None = None
        found = []
        for seed in range(first, first + seeds):
            path = self.folder / f"{digest(content, str(seed))}.json"
            if not path.is_file():
                if prepared is None:
                    prepared = self._prepare(train)
                both = self._fine_tune(prepared[0], prepared[1], seed)
                write_whole(path, json.dumps([one.tolist() for one in both]))
            found.append(read_json(path))
        arrays = np.asarray(found, dtype=np.int64)
        return Ranks(arrays[:, 0], arrays[:, 1])

    def _load(self) -> tuple[Any, Any, Any]:
        """Model, preprocessing and tokenizer of the start checkpoint."""
        from kb.encoders.open_clip import OpenClipEncoder, OpenClipSettings

        device = self.settings.device
        encoder = OpenClipEncoder(
            OpenClipSettings(model=str(self.start), device=device, dtype="float32"),
            {"model": self.start},
        )
        return encoder.parts()

    def _prepare(self, pairs: Pairs) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Decoded pictures [n, 3, side, side], and the tokens of every caption of each."""
        import torch

        from kb.encoders.base import open_image

        _, preprocess, tokenizer = self._load()
        pictures = [preprocess(open_image(data)) for data in pairs.images]
        return torch.stack(pictures), [tokenizer(list(captions)) for captions in pairs.texts]

    def _fine_tune(
        self, pictures: torch.Tensor, tokens: list[torch.Tensor], seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ranks both ways after one fine-tuning."""
        import torch
        from torch.nn import functional

        settings = self.settings
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
        size = min(settings.batch_size, len(pictures))
        order = np.zeros(0, dtype=np.int64)
        for step in range(settings.steps):
            if len(order) < size:
                order = generator.permutation(len(pictures))
            rows, order = order[:size], order[size:]
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _schedule(step, settings)
            chosen = [tokens[row][generator.integers(len(tokens[row]))] for row in rows]
            shifted = _shift(pictures[torch.from_numpy(rows)], settings.shift, generator)
            shifted = shifted.to(device, memory_format=torch.channels_last)
            image = model.encode_image(shifted, normalize=True)
            text = model.encode_text(torch.stack(chosen).to(device), normalize=True)
            logits = model.logit_scale.exp().clamp(max=MOST_SCALE) * image @ text.T
            own = torch.arange(size, device=device)
            loss = functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
        return self._rank(model.eval())

    def untrained(self) -> Ranks:
        """Ranks of the start checkpoint as it is."""
        both = self._rank(self._load()[0])
        return Ranks(both[0][None], both[1][None])

    def _rank(self, model: Any) -> tuple[np.ndarray, np.ndarray]:
        import torch

        if self._test is None:
            pictures, tokens = self._prepare(self.test)
            self._test = pictures, torch.stack([captions[0] for captions in tokens])
        device = next(model.parameters()).device
        halves = []
        with torch.inference_mode():
            for items, encode in zip(
                self._test, (model.encode_image, model.encode_text), strict=True
            ):
                parts = [encode(part.to(device), normalize=True) for part in items.split(64)]
                halves.append(torch.cat(parts).float().cpu().numpy())
        image, text = halves
        return ranks(image, text), ranks(text, image)


def _schedule(step: int, settings: DownstreamSettings) -> float:
    """Share of the highest rate: a linear rise, then half a cosine down."""
    rise = max(1, round(settings.warmup * settings.steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, settings.steps - rise)))


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
