"""What a build and a run read of pictures and hold of them, beside what they would without our devices.

Run from the checkout: python -m tests.benchmarks.build_reading [--tars N --samples N --pictures N]

A random row of many tars by its kept offsets, and by reading the tar's headers as without them; what a
scan costs, what of it is reading the files, and what reading them again for the encoder costs; what a
block of 32 rows with 12-megapixel JPEGs holds of their pictures for a captioner, and at full size.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from generators.base import Needs
from generators.blip2_settings import SIDE
from pipeline.completion.halves import decode_pictures
from pipeline.completion.row import Row
from pipeline.dataset.catalog import stream
from pipeline.dataset.dataset import DatasetSettings
from pipeline.dataset.forms.tar_index import TarIndex
from pipeline.dataset.images import decode
from pipeline.dataset.sources import Sources
from tests.benchmarks.build_speed import write_pictures
from tests.pipeline.dataset.forms.small_files import PNG
from tests.pipeline.dataset.forms.test_tars import write_tar

MIB = 1 << 20


class AsIs:
    """Stands for an encoder that scales to 224 pixels and leaves its pictures to others."""

    jpeg_side = 448

    def prepare(self, picture: Image.Image) -> None:
        return None


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds, and seconds of this process's processor time."""
    start, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - cpu


def opened(folder: Path) -> Sources:
    return Sources(DatasetSettings(path=str(folder / "data")), (), folder, folder / "catalog")


def tars(folder: Path, count: int, samples: int, asked: int = 100) -> None:
    (folder / "data").mkdir(parents=True)
    for tar in range(count):
        members = []
        for n in range(samples):
            members += [(f"{tar:05d}{n:05d}.png", PNG), (f"{tar:05d}{n:05d}.txt", b"a text")]
        write_tar(folder / "data" / f"{tar:05d}.tar", members)
    opened(folder).catalog()
    sources = opened(folder)
    sources.catalog()
    draw = random.Random(0)
    places = [(draw.randrange(count), draw.randrange(samples)) for _ in range(asked)]

    def ours() -> None:
        for tar, n in places:
            pair = {"source": "internal", "file": f"{tar:05d}.tar", "position": n}
            sources.encoded_pictures([pair])

    def headers() -> None:
        for tar, _ in places:
            name = f"{tar:05d}.tar"
            with (folder / "data" / name).open("rb") as file:
                TarIndex.read(name, file)

    kept = sum(path.stat().st_size for path in (folder / "catalog").rglob("*.tar.arrow"))
    own, other = (timed(way) for way in (ours, headers))
    print(f"{count} tars of {samples} samples, {asked} random rows, one at a time:")
    print(
        f"  by kept offsets {1000 * own[0] / asked:.1f} ms a row (processor {1000 * own[1] / asked:.1f})"
    )
    print(
        f"  headers alone {1000 * other[0] / asked:.1f} ms (processor {1000 * other[1] / asked:.1f})"
    )
    print(f"  offsets take {kept / count / samples:.0f} bytes a sample on disk, and none in memory")


def reading(folder: Path, count: int) -> None:
    folder.mkdir()
    paths = write_pictures(folder / "data", count, (640, 480))
    sources = opened(folder)
    scan = timed(lambda: sources.catalog())
    complete = sources.catalog().complete()

    def read() -> None:
        for _ in stream(sources.dataset, complete):
            pass

    bare = timed(lambda: [path.read_bytes() for path in paths])
    again = timed(read)
    print(f"{count} JPEGs of 640 x 480, by paths:")
    print(f"  scan {1000 * scan[0] / count:.2f} ms a picture; reading them again as rows")
    print(f"  {1000 * again[0] / count:.2f} ms, the bytes alone {1000 * bare[0] / count:.2f} ms")


def block(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    paths = write_pictures(folder / "large", 4, (4000, 3000))
    data = [path.read_bytes() for path in paths] * 8
    rows = [Row(str(n), {"bytes": one}, "", 1) for n, one in enumerate(data)]
    took = timed(lambda: decode_pictures(AsIs(), rows, Needs(side=SIDE), 10**9))  # type: ignore[arg-type]
    held = sum(row.item.width * row.item.height * 3 for row in rows)
    full = timed(lambda: [decode(one) for one in data[:4]])
    print("32 JPEGs of 4000 x 3000 in a block:")
    print(f"  held for BLIP-2 {held / MIB:.0f} MiB in {took[0]:.1f} s,")
    print(f"  at full size {32 * 4000 * 3000 * 3 / MIB:.0f} MiB in {8 * full[0]:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tars", type=int, default=60)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=256)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tars(folder / "tars", arguments.tars, arguments.samples)
        reading(folder / "pictures", arguments.pictures)
        block(folder / "block")


if __name__ == "__main__":
    main()
