"""Measure the checkpoints on the example world: `python -m examples.emoji.measure [PART ...]`.

Everything is measured on pictures of the styles that no checkpoint was trained on. The judge is an
encoder from another seed than the one that selects.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from examples.emoji.captions import plain
from examples.emoji.sources import HERE

logger = logging.getLogger(__name__)

POOL = 500


class Encoder:
    """An open_clip checkpoint folder, on pictures and strings."""

    def __init__(self, folder: Path) -> None:
        import open_clip

        self.model, _, self.preprocess = open_clip.create_model_and_transforms(
            f"local-dir:{folder}", precision="fp32"
        )
        self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.model.eval()

    def images(self, pictures: list[Image.Image]) -> np.ndarray:
        """Embed pictures into unit rows (n, d)."""
        import torch

        rows = []
        with torch.no_grad():
            for start in range(0, len(pictures), 64):
                part = [self.preprocess(p) for p in pictures[start : start + 64]]  # type: ignore
                rows.append(self.model.encode_image(torch.stack(part), normalize=True).numpy())
        return np.concatenate(rows)

    def texts(self, texts: list[str]) -> np.ndarray:
        """Embed strings into unit rows (n, d)."""
        import torch

        with torch.no_grad():
            rows: np.ndarray = self.model.encode_text(
                self.tokenizer(texts), normalize=True
            ).numpy()
        return rows


def recall_at(queries: np.ndarray, keys: np.ndarray, k: int = 5) -> float:
    """Give the share of queries (n, d) whose own row of keys (n, d) is among their k nearest."""
    similarity = queries @ keys.T
    own = np.diag(similarity)[:, None]
    return float(((similarity > own).sum(1) < k).mean())


def read_pairs(name: str, pool: int = POOL, seed: int = 0) -> list[dict[str, Any]]:
    """Draw complete pairs of one Parquet file, with decoded pictures under `picture`."""
    rows = pq.read_table(HERE / f"{name}.parquet").to_pylist()
    rows = [row for row in rows if row.get("relevant", True)]
    order = np.random.default_rng(seed).permutation(len(rows))[:pool]
    chosen = [rows[i] for i in order]
    for row in chosen:
        row["picture"] = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    return chosen


def measure_encoders(checkpoints: Path) -> dict[str, Any]:
    """Recall at 5 among 500 pairs, both ways, for the encoder and the judge."""
    result: dict[str, Any] = {}
    target, external = read_pairs("target"), read_pairs("external")
    names = {row["id"]: row["text"] for row in pq.read_table(HERE / "target.parquet").to_pylist()}
    for which in ("encoder", "encoder-judge"):
        encoder = Encoder(checkpoints / which)
        for style, pairs, texts in (
            ("noto, names", target, [row["text"] for row in target]),
            ("fluent flat, own captions", external, [row["text"] for row in external]),
            ("fluent flat, names", external, [names[row["id"][5:]] for row in external]),
        ):
            images, words = encoder.images([row["picture"] for row in pairs]), encoder.texts(texts)
            result[f"{which}: {style}"] = {
                "I2T R@5": recall_at(images, words), "T2I R@5": recall_at(words, images),
            }
    return result


def words_of(text: str) -> list[str]:
    """Split a caption into plain words."""
    return "".join(c if c.isalnum() or c == "'" else " " for c in plain(text)).split()


def right(said: str, name: str) -> bool:
    """Tell whether a caption is the name or holds its head noun.

    The head is the last word before a colon, a comma or a preposition ("face with tongue": face).
    For faces and people the whole name is asked for: their heads say next to nothing.
    """
    head = name.split(":")[0].split(",")[0]
    for small in (" with ", " of ", " in ", " on ", " without ", " and ", " at ", " behind "):
        head = head.split(small)[0]
    noun = words_of(head)[-1:]
    if noun and noun[0] in {"face", "person", "man", "woman", "people", "hand", "button"}:
        return words_of(said) == words_of(name)
    return words_of(said) == words_of(name) or noun[0] in words_of(said)


def main() -> None:
    """Measure what is asked for and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["encoders"])
    parser.add_argument("--checkpoints", type=Path, default=HERE / "checkpoints")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    for part in options.parts:
        found = {"encoders": measure_encoders}[part](options.checkpoints)
        print(json.dumps({part: found}, indent=1))


if __name__ == "__main__":
    main()
