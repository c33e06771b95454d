"""What a file format costs a picture: bytes, time, and what the judge makes of it.

Crops of scikit-learn's two photographs, with the detail that a camera gives them. Beside the
size in each format stand the change of NIQE by it, the spread of NIQE over the crops, and in how
many of all pairs of crops the better one by NIQE stays the better one.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.image_formats
"""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import numpy as np
from PIL import Image

from pipeline.dataset.encoding import ImageFormat
from selection.niqe import niqe

SIDE = 384
FORMATS: tuple[dict[str, Any], ...] = (
    {"format": "png"},
    {"lossless": True},
    {"quality": 80},
    {"quality": 90},
    {"quality": 95},
    {"format": "jpeg", "quality": 90},
    {"format": "jpeg", "quality": 95},
)


def crops(count: int = 16) -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    random, found = np.random.default_rng(0), []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        top, left = (int(random.integers(0, side - SIDE + 1)) for side in photograph.shape[:2])
        found.append(Image.fromarray(photograph[top : top + SIDE, left : left + SIDE]))
    return found


def measure() -> list[dict[str, Any]]:
    images = crops()
    before = niqe(images)
    pairs = list(itertools.combinations(range(len(images)), 2))
    results = []
    for settings in FORMATS:
        format = ImageFormat(**settings)
        started = time.process_time()
        encoded = [format.encode(image) for image in images]
        seconds = time.process_time() - started
        after = niqe([format.written(image)[0] for image in images])
        same = [(before[a] < before[b]) == (after[a] < after[b]) for a, b in pairs]
        size = float(np.mean([len(data) for data in encoded])) / SIDE**2
        results.append(
            {
                "format": str(format),
                "bytes_a_pixel": round(size, 3),
                "kB_of_1024_x_1024": round(size * 1024 * 1024 / 1000),
                "encoding_ms_a_megapixel": round(seconds / len(images) / SIDE**2 * 1e9),
                "niqe_before": round(float(before.mean()), 2),
                "niqe_after": round(float(after.mean()), 2),
                "niqe_spread": round(float(before.std()), 2),
                "same_order": round(float(np.mean(same)), 3),
            }
        )
    return results


if __name__ == "__main__":
    for one in measure():
        print(json.dumps(one))
