"""The photographs that generators learn from: read, made small for a machine elsewhere, and seen anew.

    python -m examples.recipes.gap.photographs data/gap elsewhere/gap --quality 40

writes all that a training reads of them into one file, which is read without pyarrow.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

PARQUET, PACKED = "photographs/learned.parquet", "photographs/learned.npz"
# So many of the learned half, the last ones, are kept out to see what was learned by heart.
HELD_OUT = 100
SIDE = 160
# Of a photograph's side what a cropped view keeps, and how far its light and colours may go.
KEPT, CHANGED = (0.8, 1.0), 0.25


def read_learned(folder: Path) -> tuple[list[bytes], list[list[str]]]:
    """Encoded pictures and their captions, of a folder as `worlds.make` or `pack` wrote it.

    Raises
    ------
    OSError
        There is neither file.
    """
    if (folder / PACKED).is_file():
        with np.load(folder / PACKED) as held:
            whole, ends = held["pictures"].tobytes(), held["ends"].tolist()
            captions = json.loads(held["captions"].tobytes())
        return [whole[a:b] for a, b in zip([0, *ends], ends, strict=False)], captions
    import pyarrow.parquet as pq

    table = pq.read_table(folder / PARQUET, columns=["image", "text"])
    return [image["bytes"] for image in table["image"].to_pylist()], table["text"].to_pylist()


def pack(folder: Path, out: Path, quality: int) -> int:
    """Write the photographs as WebP of a quality, with their captions; gives the file's bytes."""
    pictures, captions = read_learned(folder)
    small = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(picture)).convert("RGB").save(
            buffer, "WEBP", quality=quality, method=6
        )
        small.append(buffer.getvalue())
    path = out / PACKED
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        pictures=np.frombuffer(b"".join(small), np.uint8),
        ends=np.cumsum([len(one) for one in small]),
        captions=np.frombuffer(json.dumps(captions).encode(), np.uint8),
    )
    return path.stat().st_size


def held_out(count: int) -> int:
    """How many of so many photographs are kept out, one at least."""
    return max(1, min(HELD_OUT, count // 10))


def time_left(minutes: float, begun: float) -> float:
    """What is left of some minutes that began at a `time.monotonic()`, a second at least."""
    return max(minutes - (time.monotonic() - begun) / 60, 1 / 60)


def pixels_of(pictures: Sequence[bytes], side: int = SIDE) -> torch.Tensor:
    """Pictures as uint8 [n, 3, side, side], squeezed where they are no squares."""
    found = np.empty((len(pictures), side, side, 3), np.uint8)
    for row, picture in enumerate(pictures):
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        found[row] = np.asarray(image if image.size == (side, side) else image.resize((side, side)))
    return torch.from_numpy(found).permute(0, 3, 1, 2).contiguous()


def view(pixels: torch.Tensor, side: int, number: int, rng: np.random.Generator) -> torch.Tensor:
    """A view of photographs, float [n, 3, side, side] in 0..1, where the pixels are.

    Parameters
    ----------
    pixels : uint8 [n, 3, height, width]
        Cropped alike, so that few at a time are many views.
    number : int
        0 shows them as they are, 1 mirrored, any other cropped, maybe mirrored, in other light.
    """
    x = pixels.float() / 255
    if number > 1:
        kept = round(float(rng.uniform(*KEPT)) * x.shape[-1])
        top, left = rng.integers(0, x.shape[-1] - kept + 1, 2).tolist()
        x = x[..., top : top + kept, left : left + kept]
    if number == 1 or (number > 1 and rng.random() < 0.5):
        x = x.flip(-1)
    x = interpolate(x, (side, side), mode="bicubic", antialias=True, align_corners=False)
    if number > 1:
        light, contrast, colour = (1 + rng.uniform(-CHANGED, CHANGED, 3)).tolist()
        grey = x.mean(dim=1, keepdim=True)
        x = grey + colour * (x - grey)
        middle = x.mean(dim=(1, 2, 3), keepdim=True)
        x = light * (middle + contrast * (x - middle))
    return x.clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what `examples.recipes.gap.worlds` wrote")
    parser.add_argument("output", type=Path, help="a folder to train in elsewhere")
    parser.add_argument("--quality", type=int, default=80, help="of WebP, 0 to 100")
    options = parser.parse_args()
    try:
        size = pack(options.folder, options.output, options.quality)
    except (ValueError, OSError) as error:
        raise SystemExit(f"photographs: {error}") from None
    print(f"{options.output / PACKED}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
