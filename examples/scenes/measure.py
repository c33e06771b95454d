"""Measure the checkpoints on draws of the example world: `python -m examples.scenes.measure`.

Each draw keeps some pairs of the target whole, as `incomplete.parquet` does, and hides halves of
others. Everything is measured on styles and, but for the plain dialect, on wordings that no
checkpoint learned from.
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

from examples.scenes.grammar import own_words, words
from examples.scenes.models import Encoder, greedy, paint
from examples.scenes.sources import HERE
from examples.scenes.training.blip2 import prompt_with

WHOLE, HIDDEN = 200, 100
Row = dict[str, Any]


def read_pairs(path: Path) -> list[Row]:
    """Read pairs with decoded pictures under `picture` and things as a set."""
    rows: list[Row] = pq.read_table(path).to_pylist()
    for row in rows:
        row["picture"] = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        row["holds"] = set(row["things"].split(", ")) if row["things"] else set()
    return rows


def ridge(x: np.ndarray, y: np.ndarray, weight: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Fit y from x (both (n, d)) by least squares with a penalty; give matrix and offset."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    a, b = x - x_mean, y - y_mean
    matrix = np.linalg.solve(a.T @ a + weight * np.eye(x.shape[1]), a.T @ b)
    return matrix, y_mean - x_mean @ matrix


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length one."""
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


class World:
    """Both Parquet files, embedded once.

    Parameters
    ----------
    data, checkpoints : Path
        Folders of the Parquet files and of the checkpoints.
    """

    def __init__(self, data: Path, checkpoints: Path) -> None:
        encoder = Encoder(checkpoints / "encoder")
        self.target = read_pairs(data / "target.parquet")
        self.external = read_pairs(data / "external.parquet")
        self.rows = self.target + self.external
        self.images = encoder.images([row["picture"] for row in self.rows])
        self.texts = encoder.texts([row["text"] for row in self.rows])

    def draw(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Give positions of the rows that stay whole, and of those whose half is hidden."""
        order = np.random.default_rng(seed).permutation(len(self.target))
        return order[:WHOLE], order[WHOLE : WHOLE + HIDDEN]

    def retrieve(
        self, whole: np.ndarray, asked: np.ndarray, by: str, best: int = 1, k: int = 30
    ) -> np.ndarray:
        """Give the base's best rows for each query, as the pipeline's fusion does, in short.

        The k nearest by the half that is there, then by that and the predicted other half.
        """
        base = np.concatenate([whole, np.arange(len(self.target), len(self.rows))])
        own, other = (self.texts, self.images) if by == "text" else (self.images, self.texts)
        matrix, offset = ridge(own[whole], other[whole])
        foretold = unit(own[asked] @ matrix + offset)
        near = own[asked] @ own[base].T
        both = 0.5 * near + 0.5 * foretold @ other[base].T
        kept = np.argsort(-near, axis=1, kind="stable")[:, :k]
        order = np.argsort(-np.take_along_axis(both, kept, 1), axis=1, kind="stable")[:, :best]
        return base[np.take_along_axis(kept, order, 1)]


def measure_retrieval(world: World, draws: int, checkpoints: Path) -> dict[str, Any]:
    """Share of rows whose retrieved example shares a thing, and a thing and the ground."""
    result: dict[str, Any] = {}
    for by in ("picture", "text"):
        figures: dict[str, list[float]] = {"thing": [], "thing and ground": [], "noise": []}
        for seed in range(draws):
            whole, asked = world.draw(seed)
            found = world.retrieve(whole, asked, by)[:, 0]
            pairs = [(world.rows[q], world.rows[f]) for q, f in zip(asked, found, strict=True)]
            shares = [bool(q["holds"] & f["holds"]) for q, f in pairs]
            ground = [q["ground"] == f["ground"] for q, f in pairs]
            figures["thing"].append(float(np.mean(shares)))
            figures["thing and ground"].append(float(np.mean(np.asarray(shares) & ground)))
            figures["noise"].append(float(np.mean([not f["holds"] for _, f in pairs])))
        result[f"by {by}"] = {key: round(float(np.mean(v)), 3) for key, v in figures.items()}
    return result


def own_right(said: list[str], truth: list[str]) -> float:
    """Give the share of the target's own words in true texts that the generated ones have."""
    own = own_words()
    hits = asked = 0
    for text, true in zip(said, truth, strict=True):
        wanted = own & set(words(true))
        hits += len(wanted & set(words(text)))
        asked += len(wanted)
    return hits / max(asked, 1)


def measure_texts(world: World, draws: int, checkpoints: Path) -> dict[str, Any]:
    """CIDEr-D and the share of the target's own words, with none to three examples."""
    from pipeline.check.captions import cider_d

    result: dict[str, Any] = {}
    for count in range(4):
        scores, shares = [], []
        for seed in range(draws):
            whole, asked = world.draw(seed)
            found = world.retrieve(whole, asked, "picture", max(count, 1))[:, :count]
            shown = [[world.rows[i]["text"] for i in row] for row in found]
            pictures = [world.rows[i]["picture"] for i in asked]
            truth = [world.rows[i]["text"] for i in asked]
            said = greedy(checkpoints / "captioner", pictures, [prompt_with(s) for s in shown])
            scores.append(float(cider_d(said, [[text] for text in truth]).mean()))
            shares.append(own_right(said, truth))
        result[f"{count} examples"] = {
            "CIDEr-D": round(float(np.mean(scores)), 3),
            "own words right": round(float(np.mean(shares)), 3),
            "some": list(zip(shown[:8], said[:8], truth[:8], strict=True)),
        }
    return result


def measure_images(world: World, draws: int, checkpoints: Path) -> dict[str, Any]:
    """Cosine by the judge of generated pictures to the true ones, with and without an example."""
    judge = Encoder(checkpoints / "encoder-judge")
    figures: dict[str, list[float]] = {}
    for seed in range(draws):
        whole, asked = world.draw(seed)
        found = world.retrieve(whole, asked, "text")[:, 0]
        truth = judge.images([world.rows[i]["picture"] for i in asked])
        starts = [world.rows[i]["picture"] for i in found]
        texts = [world.rows[i]["text"] for i in asked]
        kinds = {"example itself": starts, "direct": paint(checkpoints / "sdxl", texts, None, 4.0)}
        for strength in (0.5, 0.75):
            drawn = paint(checkpoints / "sdxl", texts, starts, 4.0, strength=strength)
            kinds[f"img2img at {strength}"] = drawn
        for kind, pictures in kinds.items():
            cosine = (judge.images(pictures) * truth).sum(1).mean()
            figures.setdefault(kind, []).append(float(cosine))
    return {kind: round(float(np.mean(values)), 3) for kind, values in figures.items()}


def main() -> None:
    """Measure what is asked for and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {"retrieval": measure_retrieval, "texts": measure_texts, "images": measure_images}
    parser.add_argument("parts", nargs="*", default=list(parts), metavar="PART")
    parser.add_argument("--data", type=Path, default=HERE)
    parser.add_argument("--checkpoints", type=Path, default=HERE / "checkpoints")
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    for part in options.parts:
        if part not in parts:
            raise SystemExit(f"PART must be one of {', '.join(parts)}; got {part!r}")
    world = World(options.data, options.checkpoints)
    for part in options.parts:
        found = parts[part](world, options.draws, options.checkpoints)
        print(json.dumps({part: found}, indent=1))


if __name__ == "__main__":
    main()
