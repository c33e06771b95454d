"""Measures the weight of NIQE in the score of pictures (λ₂), on degraded photographs.

Rows are crops of libraries' sample photographs. A row's four candidates are crops of the same
photograph (nearer or farther from the true place) and of others, each left clean or degraded by
noise, blur or JPEG. The pseudo-embedding is the true crop's embedding plus noise, drawn so that
its mean cosine to the truth is that of a mapping of a given quality. For each λ₂ the chosen
candidate is compared with the truth, which the score never sees: cosine to the true crop's
embedding, and whether a clean candidate was taken where one of the same photograph was there.

    python -m tests.benchmarks.selection_images PHOTOGRAPHS ENCODER [--rows 400]

PHOTOGRAPHS: a folder with astronaut, chelsea, coffee, motorcycle_left, rocket, camera (.png/.jpg)
as in scikit-image's wheel (`skimage/data`). ENCODER: the folder `dist/models/mobilenet_v2` of the
npm package nsfwjs 4.3.0 (MIT): a MobileNetV2 whose pooled 1,280 features are the embedding.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from selection.niqe import niqe
from selection.scales import Standard

NAMES = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket", "camera")
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0)
RAW_WEIGHTS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SIDE = 288


class MobileNet:
    """Pooled features of a Keras MobileNetV2 stored for TensorFlow.js (8-bit weights)."""

    def __init__(self, folder: Path) -> None:
        import torch

        manifest = (folder / "model.min.js").read_text()
        shard = (folder / "group1-shard1of1.min.js").read_text()
        encoded = max(re.findall(r"[A-Za-z0-9+/=]{1000,}", shard), key=len)
        data, place = base64.b64decode(encoded), 0
        entry = re.compile(
            r'\{name:"([^"]+)",shape:\[([\d,]*)\],dtype:"float32",'
            r'quantization:\{min:([-.\de]+),scale:([-.\de]+),dtype:"uint8"'
        )
        self.weights: dict[str, Any] = {}
        for name, shape, low, scale in entry.findall(manifest):
            sides = [int(side) for side in shape.split(",")]
            size = int(np.prod(sides))
            values = np.frombuffer(data[place : place + size], np.uint8).astype(np.float32)
            values = (values * float(scale) + float(low)).reshape(sides)
            self.weights[name] = torch.from_numpy(values)
            place += size
        if place != len(data):
            raise ValueError(f"{folder}: weights hold {len(data)} bytes, the manifest {place}")

    def _normalise(self, x: Any, name: str) -> Any:
        from torch.nn import functional

        gamma, beta, mean, variance = (
            self.weights[f"{name}/{part}"]
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return functional.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)

    def _block(self, x: Any, prefix: str, stride: int) -> Any:
        from torch.nn import functional

        start = x
        if f"{prefix}expand/kernel" in self.weights:
            x = self._pointwise(x, f"{prefix}expand").clamp(0, 6)
        kernel = self.weights[f"{prefix}depthwise/depthwise_kernel"].permute(2, 3, 0, 1)
        x = functional.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        x = functional.conv2d(x, kernel, stride=stride, groups=len(kernel))
        x = self._normalise(x, f"{prefix}depthwise_BN").clamp(0, 6)
        x = self._pointwise(x, f"{prefix}project")
        return x + start if x.shape == start.shape else x

    def _pointwise(self, x: Any, name: str) -> Any:
        from torch.nn import functional

        kernel = self.weights[f"{name}/kernel"].permute(3, 2, 0, 1)
        return self._normalise(functional.conv2d(x, kernel), f"{name}_BN")

    def encode(self, images: list[Image.Image]) -> np.ndarray:
        """Unit features, float32 [n, 1280]."""
        import torch
        from torch.nn import functional

        rows = []
        for start in range(0, len(images), 32):
            batch = [np.asarray(one.resize((224, 224))) for one in images[start : start + 32]]
            x = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1
            with torch.inference_mode():
                kernel = self.weights["Conv1/kernel"].permute(3, 2, 0, 1)
                x = functional.conv2d(functional.pad(x, (0, 1, 0, 1)), kernel, stride=2)
                x = self._normalise(x, "bn_Conv1").clamp(0, 6)
                x = self._block(x, "expanded_conv_", 1)
                for number in range(1, 17):
                    stride = 2 if number in (1, 3, 6, 13) else 1
                    x = self._block(x, f"block_{number}_", stride)
                kernel = self.weights["Conv_1/kernel"].permute(3, 2, 0, 1)
                x = self._normalise(functional.conv2d(x, kernel), "Conv_1_bn").clamp(0, 6)
                rows.append(functional.normalize(x.mean(dim=(2, 3)), dim=1).numpy())
        return np.concatenate(rows)


def photographs(folder: Path) -> list[Image.Image]:
    """scikit-learn's two and scikit-image's, RGB."""
    from sklearn.datasets import load_sample_images

    found = [Image.fromarray(photo) for photo in load_sample_images().images]
    for name in NAMES:
        (path,) = folder.glob(f"{name}.*")
        found.append(Image.open(path).convert("RGB"))
    return found


def crop(photo: Image.Image, generator: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """A random crop and its place, in shares of a crop's side."""
    place = [int(generator.integers(0, side - SIDE + 1)) for side in photo.size]
    box = (*place, place[0] + SIDE, place[1] + SIDE)
    return photo.crop(box), np.array(place) / SIDE


def degrade(image: Image.Image, generator: np.random.Generator) -> tuple[Image.Image, str]:
    """The picture clean (one in four), noisy, blurred or compressed, of random strength."""
    kind = ("clean", "noise", "blur", "jpeg")[generator.integers(4)]
    if kind == "noise":
        level = generator.uniform(8, 40)
        pixels = np.asarray(image) + generator.normal(0, level, (SIDE, SIDE, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    elif kind == "blur":
        image = image.filter(ImageFilter.GaussianBlur(generator.uniform(1, 4)))
    elif kind == "jpeg":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(generator.integers(4, 30)))
        image = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    return image, kind


def pseudo(truth: np.ndarray, cosine: float, generator: np.random.Generator) -> np.ndarray:
    """Unit rows at about this cosine to unit rows [n, d], the rest in a random direction."""
    noise = generator.normal(size=truth.shape)
    noise -= (noise * truth).sum(axis=1, keepdims=True) * truth
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    spread = np.clip(generator.normal(cosine, 0.08, (len(truth), 1)), 0.05, 0.98)
    return spread * truth + np.sqrt(1 - spread**2) * noise


def measure(folder: Path, encoder: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Figures per pseudo-embedding quality, kind of score and λ₂."""
    generator = np.random.default_rng(seed)
    photos = photographs(folder)
    truths, candidates, kinds, same = [], [], [], []
    for _ in range(count):
        own = int(generator.integers(len(photos)))
        truths.append(crop(photos[own], generator)[0])
        for number in range(4):
            # Half of the candidates show the right thing.
            source = own if number < 2 else int(generator.integers(len(photos)))
            image, kind = degrade(crop(photos[source], generator)[0], generator)
            candidates.append(image)
            kinds.append(kind)
            same.append(source == own)
    network = MobileNet(encoder)
    z = network.encode(truths).astype(np.float64)
    # Features after a ReLU all point one way; as kb's encoders' do not, take the mean out.
    e = network.encode(candidates).astype(np.float64)
    centre = z.mean(axis=0)
    z, e = (rows - centre for rows in (z, e))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    e = e.reshape(count, 4, -1)
    quality = niqe(candidates).reshape(count, 4)
    truth = np.einsum("nkd,nd->nk", e, z)
    clean = np.array(kinds).reshape(count, 4) == "clean"
    right = np.array(same).reshape(count, 4)
    contested = (clean & right).any(axis=1)
    real = niqe(truths)
    half = count // 2
    results = []
    for level in (0.3, 0.45, 0.6, 0.75):
        target = pseudo(z, level, generator)
        cosines = np.einsum("nkd,nd->nk", e, target)
        on_real = np.einsum("nd,nd->n", z, target)
        own_standard, niqe_standard = Standard.of(on_real[:half]), Standard.of(real[:half])
        assert own_standard is not None
        assert niqe_standard is not None
        for scaled, weights in ((True, WEIGHTS), (False, RAW_WEIGHTS)):
            c = own_standard(cosines) if scaled else cosines
            q = niqe_standard(quality) if scaled else quality
            for weight in weights:
                chosen = (c - weight * np.nan_to_num(q, nan=0.0))[half:].argmax(axis=1)
                rows = np.arange(half, count), chosen
                gain = truth[rows] - truth[half:][np.arange(count - half), c[half:].argmax(axis=1)]
                error = gain.std(ddof=1) / np.sqrt(len(gain))
                taken = (clean & right)[rows][contested[half:]].mean()
                results.append(
                    {
                        "pseudo_cosine": level,
                        "standardised": scaled,
                        "lambda2": weight,
                        "cosine_to_truth": round(float(truth[rows].mean()), 4),
                        "gain": round(float(gain.mean()), 4),
                        "standard_error": round(float(error), 4),
                        "clean_and_right": round(float(taken), 3),
                        "clean": round(float(clean[rows].mean()), 3),
                        "right": round(float(right[rows].mean()), 3),
                    }
                )
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for one in measure(arguments.photographs, arguments.encoder, arguments.rows, arguments.seed):
        print(json.dumps(one))
