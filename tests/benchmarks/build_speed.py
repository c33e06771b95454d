"""Embedding pictures from JPEGs on disk, as a build does it, against a bare torch DataLoader.

Run from the checkout: python -m tests.benchmarks.build_speed [--full | --pictures N --turns N]

Both sides read the same files, encode with the same open_clip model (random weights) and the same
transforms, and take turns; the DataLoader has two workers, which are up before its clock starts, and
decodes every JPEG at its full size, as people write it. Ours is `PairEmbeddings.pairs` without the
store: from the rows of a scanned catalog to unit embeddings. Both sides without the encoder stand
beside, ours also at full size, which tells threads from processes. At the end stands what decoding at
JPEG's own scales does to the embeddings.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from kb.encoders import base
from kb.encoders.open_clip import OpenClipEncoder, OpenClipSettings
from pipeline.dataset.dataset import DatasetSettings
from pipeline.dataset.images import decode
from pipeline.dataset.sources import Sources
from pipeline.knowledge.embedding import decoded

EXAMPLE = Path(__file__).parents[2] / "examples" / "scenes"
BATCH, UNLIKE = 64, 192
SIZES = {"640 x 480": (640, 480), "4000 x 3000": (4000, 3000)}
TINY = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": 224, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32,
    },
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}  # fmt: skip


def write_model(folder: Path, name: str) -> None:
    """An open_clip model with random weights."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = TINY if name == "tiny" else open_clip.get_model_config(name)
    model = open_clip.CLIP(**TINY) if name == "tiny" else open_clip.create_model(name)
    folder.mkdir()
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    described = {"model_cfg": config, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))


def write_pictures(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """JPEGs of the example world's pictures with noise, so that they decode as photographs do.

    After so many as are unlike come their copies.
    """
    folder.mkdir()
    rows = pq.read_table(EXAMPLE / "target.parquet", columns=["image"]).slice(0, 32)
    generator = np.random.default_rng(0)
    paths: list[Path] = []
    for number in range(count):
        if number >= UNLIKE:
            paths.append(shutil.copy(paths[number - UNLIKE], folder / f"{number:05d}.jpg"))
            continue
        data = rows["image"][number % len(rows)].as_py()["bytes"]
        small = Image.open(io.BytesIO(data)).convert("RGB")
        pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.int16)
        pixels = pixels + generator.integers(-12, 13, pixels.shape, dtype=np.int16)
        paths.append(folder / f"{number:05d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    lines = [json.dumps({"file_name": p.name, "text": f"picture {p.stem}"}) for p in paths]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return paths


class Files(Dataset[Any]):
    """What people write: open, convert, transform."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Any], Any]) -> None:
        self.paths = paths
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Any:
        return self.transform(Image.open(self.paths[number]).convert("RGB"))


def rates(
    folder: Path, paths: list[Path], model: Path, batch: int, turns: int, alone: bool
) -> dict[str, list[float]]:
    """Pictures a second of both sides, by turns; also of decoding alone if told."""
    encoder = OpenClipEncoder(
        OpenClipSettings(model=str(model), batch_size=batch), {"model": model}
    )
    encoder.load()
    settings = DatasetSettings(path=str(paths[0].parent))
    sources = Sources(settings, (), folder, folder / "catalogs")
    catalog = sources.catalog()
    complete = catalog.complete()

    def ours() -> np.ndarray:
        found = decoded(
            catalog, complete, range(len(complete)),
            encoder.prepare, encoder.jpeg_side, encoder.pictures_ahead,
        )  # fmt: skip
        return encoder.encode((picture for _, picture in found), "image")

    files = Files(paths, encoder._preprocess)
    # Two workers on two cores; as many as cores elsewhere, as ours takes.
    loader = DataLoader(files, batch, num_workers=os.cpu_count() or 2, persistent_workers=True)

    def bare() -> np.ndarray:
        made = []
        with torch.inference_mode():
            for tensors in loader:
                there = tensors.to(encoder._device, encoder._dtype)
                found = encoder._model.encode_image(there, normalize=True)
                made.append(found.float().cpu().numpy())
        return np.concatenate(made)

    def threads(side: int | None) -> int:
        found = decoded(
            catalog, complete, range(len(complete)),
            encoder.prepare, side, encoder.pictures_ahead,
        )  # fmt: skip
        return sum(1 for _ in found)

    ways: dict[str, Callable[[], Any]] = {"ours": ours, "DataLoader": bare}
    parts: dict[str, Callable[[], Any]] = {
        "threads alone": lambda: threads(encoder.jpeg_side),
        "threads alone, full size": lambda: threads(None),
        "DataLoader alone": lambda: sum(len(tensors) for tensors in loader),
    }
    ways |= parts if alone else {}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(turns):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            found[name].append(len(paths) / (time.perf_counter() - start))
    return found


def likeness(model: Path, pictures: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Cosines [n] of embeddings of pictures decoded at a scale to those decoded at full size."""
    encoder = OpenClipEncoder(OpenClipSettings(model=str(model)), {"model": model})
    encoder.load()
    side = encoder.jpeg_side or 0
    full = encoder.encode([decode(data) for data in pictures], "image")
    found = {}
    for margin in (1, base.JPEG_MARGIN):
        least = side * margin // base.JPEG_MARGIN
        scaled = encoder.encode([decode(data, least_side=least) for data in pictures], "image")
        found[f"at least {least} pixels ({margin} x)"] = (scaled * full).sum(axis=1)
    return found


def photographs(count: int) -> list[bytes]:
    """JPEGs of 400 x 300: parts of scikit-learn's two sample photographs."""
    from sklearn.datasets import load_sample_images

    made = []
    for number in range(count):
        photo = load_sample_images().images[number % 2]
        top, left = number * 29 % 127, number * 53 % 240
        buffer = io.BytesIO()
        Image.fromarray(photo[top : top + 300, left : left + 400]).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="1,024 and 128 pictures, 5 turns")
    parser.add_argument("--pictures", type=int, default=64, help="small ones; of large an eighth")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=["tiny", "ViT-B-32"])
    arguments = parser.parse_args()
    pictures, turns = (1024, 5) if arguments.full else (arguments.pictures, arguments.turns)
    counts = dict(zip(SIZES, (pictures, max(8, pictures // 8)), strict=True))
    print(
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = {
            name: write_pictures(folder / str(number), counts[name], size)
            for number, (name, size) in enumerate(SIZES.items())
        }
        for name in arguments.models:
            write_model(folder / name, name)
            for size, own in paths.items():
                found = rates(
                    folder / f"{name}-{size}",
                    own,
                    folder / name,
                    BATCH,
                    turns,
                    alone=name == "tiny",
                )
                print(f"load average {os.getloadavg()[0]:.1f}")
                told = ", ".join(f"{way} {np.median(rate):.1f}" for way, rate in found.items())
                ratios = np.divide(found["ours"], found["DataLoader"])
                print(f"{name}, {len(own)} JPEGs of {size}, pictures/s: {told}")
                print(
                    f"  ours over the DataLoader: {np.median(ratios):.2f} of {turns} turns"
                    f" ({min(ratios):.2f} to {max(ratios):.2f}; bar 0.9)"
                )
        kinds = {size: [p.read_bytes() for p in own[:32]] for size, own in paths.items()}
        for model in [
            EXAMPLE / "checkpoints" / "encoder",
            *(folder / name for name in arguments.models),
        ]:
            for kind, pictures in kinds.items():
                for how, cosines in likeness(model, pictures).items():
                    print(
                        f"{model.name}, {len(pictures)} JPEGs ({kind}), {how}: cosine to full size"
                        f" {cosines.mean():.5f}, least {cosines.min():.5f}"
                    )


if __name__ == "__main__":
    main()
