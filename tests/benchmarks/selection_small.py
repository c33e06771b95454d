"""Measures whether a fitted NIQE says anything of pictures too small for the published model.

    python -m tests.benchmarks.selection_small PAIRS.parquet

PAIRS.parquet: rows with an `image` struct, such as the example's `target.parquet` (64 × 64).
A model is fitted on 400 pictures; of 200 others the share is told whose noisy (σ = 15), blurred
(radius 1.5) or compressed (JPEG quality 10) form has the higher NIQE. Chance is 0.5.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

from selection.niqe import NiqeModel, niqe

FITTED, JUDGED = 400, 200


def noisy(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image) + generator.normal(0, 15, (*image.size[::-1], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def compressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=10)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def main(path: Path) -> None:
    generator = np.random.default_rng(0)
    column = pq.read_table(path, columns=["image"])["image"].to_pylist()
    order = generator.permutation(len(column))[: FITTED + JUDGED]
    images = [Image.open(io.BytesIO(column[n]["bytes"])).convert("RGB") for n in order]
    fitted, judged = images[:FITTED], images[FITTED:]
    damaged = {
        "noise": [noisy(one, generator) for one in judged],
        "blur": [one.filter(ImageFilter.GaussianBlur(1.5)) for one in judged],
        "jpeg": [compressed(one) for one in judged],
    }
    for block in (16, 32):
        for sharpness in (0.75, 0.0):
            model = NiqeModel.fit(fitted, block=block, sharpness=sharpness)
            clean = niqe(judged, model)
            entry = {
                "block": block,
                "sharpness": sharpness,
                "judged": int(np.isfinite(clean).sum()),
            }
            for name, forms in damaged.items():
                entry[name] = round(float((niqe(forms, model) > clean).mean()), 3)
            print(json.dumps(entry))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    main(parser.parse_args().pairs)
