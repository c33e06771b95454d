"""Encoding from JPEGs on disk, against a bare open_clip loop over the same pictures decoded.

Run from the checkout: python -m tests.benchmarks.kb_encoding [--full]

The model is ViT-B-32 with random weights, the pictures are the example world's, 640 pixels wide
with noise, so that they decode as slowly as photographs. Runs of both take turns, and the best of
each counts. The loop prepares and encodes pictures that lie decoded in memory; a second one has
even the tensors ready.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from kb.encoders.base import open_image
from kb.encoders.open_clip import OpenClipEncoder, OpenClipSettings

EXAMPLE = Path(__file__).parents[2] / "examples" / "scenes"
BATCH = 32


def write_model(folder: Path) -> None:
    """ViT-B-32 with random weights, as open_clip keeps it."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    described = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))


def write_pictures(folder: Path, count: int) -> list[Path]:
    rows = pq.read_table(EXAMPLE / "target.parquet", columns=["image"]).slice(0, count)
    generator = np.random.default_rng(0)
    paths = []
    for number, row in enumerate(rows["image"].to_pylist()):
        small = Image.open(io.BytesIO(row["bytes"])).convert("RGB")
        pixels = np.asarray(small.resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        pixels = pixels + generator.integers(-12, 13, pixels.shape, dtype=np.int16)
        paths.append(folder / f"{number:05d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of processor time over all threads."""
    start, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="1,024 pictures and 5 turns")
    arguments = parser.parse_args()
    count, turns = (1024, 5) if arguments.full else (64, 3)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_model(folder)
        paths = write_pictures(folder, count)
        settings = OpenClipSettings(model=str(folder), batch_size=BATCH, device="cpu")
        encoder = OpenClipEncoder(settings, {"model": folder})
        encoder.load()
        decoded = [open_image(path) for path in paths]
        tensors = torch.stack([encoder._preprocess(picture) for picture in decoded])

        def loop() -> None:
            with torch.inference_mode():
                for start in range(0, count, BATCH):
                    batch = [encoder._preprocess(p) for p in decoded[start : start + BATCH]]
                    encoder._model.encode_image(torch.stack(batch), normalize=True)

        def bare() -> None:
            with torch.inference_mode():
                for start in range(0, count, BATCH):
                    encoder._model.encode_image(tensors[start : start + BATCH], normalize=True)

        ways: dict[str, Callable[[], object]] = {
            "from JPEGs": lambda: encoder.encode(paths, "image"),
            "decoded pictures": loop,
            "tensors": bare,
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        bare()
        for _ in range(turns):
            for name, way in ways.items():
                found[name].append(timed(way))
    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, load average "
        f"{os.getloadavg()[0]:.1f}; {count} JPEGs of 640 x 480, ViT-B-32, batches of {BATCH}"
    )
    best = {
        name: [min(column) for column in zip(*values, strict=True)]
        for name, values in found.items()
    }
    for name, (seconds, processor) in best.items():
        print(f"  {name:18} {count / seconds:7.1f} pictures/s, {processor:.1f} s of processor time")
    own = best["from JPEGs"]
    for name in ("decoded pictures", "tensors"):
        bar = "bar 0.9" if name == "decoded pictures" else "no bar"
        print(
            f"throughput over the loop on {name}: {best[name][0] / own[0]:.3f} "
            f"(by processor time {best[name][1] / own[1]:.3f}; {bar})"
        )


if __name__ == "__main__":
    main()
