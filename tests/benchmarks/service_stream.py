"""A whole run against a server: its pace beside one continuous bare stream of the same requests.

    python -m tests.benchmarks.service_stream --latency 0.15 --sigma 1 --rounds 3
    python -m tests.benchmarks.service_stream --latency 0.2 --sigma 0 --rounds 3
    python -m tests.benchmarks.service_stream --latency 0.6 --sigma 1 --rows 1024 --worker

The server is a process of its own, which answers after a pause. Ours is the completion of a run: rows read
from Parquet, embedded, grounded, asked for, judged and written, blocks of 32 in shards of 256. The bare
stream reads the same rows, encodes each picture once as JPEG and posts all requests by aiohttp, as many
at once as we do, with nothing to wait for at any block. The sides take turns in one process. Ours as a worker of
a cluster does one shard after the other, knowing none that follows.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from generators.base import CaptionRequest, Example
from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds
from tests.benchmarks.service_speed import bare, serve, timed
from tests.quick_parts import COLOURS

PAIRS = 64


def picture(number: int, side: int) -> bytes:
    """A photograph-like JPEG of a colour."""
    random = np.random.default_rng(number)
    colour = list(COLOURS.values())[number % len(COLOURS)]
    coarse = random.integers(-60, 61, (side // 16, side // 16, 3)) + colour
    small = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def world(
    folder: Path, rows: int, side: int, n: int, server: dict[str, Any], shard: int = 256
) -> Path:
    """Rows without a text beside some pairs; each asks for n candidates with one example."""
    made = []
    for number in range(PAIRS + rows):
        row = quick_worlds.row(number, None if number < PAIRS else "text")
        row["image"] = {"bytes": picture(number, side), "path": None}
        made.append(row)
    quick_worlds.write(folder / "data" / "a.parquet", made)
    return quick_worlds.config(
        folder,
        captioner={"kind": "openai", "model": "m", "send_data": True, "api_key_env": None} | server,
        generation={"n": n, "attempts": 1, "ungrounded": {"text": 0}},
        run={"shard_size": shard, "block_size": 32},
    )


def by_us(config: Path, output: Path, worker: bool = False) -> tuple[float, float]:
    """Seconds on the clock and of our processor that the completion of a fresh run takes.

    A worker of a cluster is handed one shard at a time.
    """
    job = Job(load_config(config).model_copy(update={"output": str(output)}))
    with job.lock():
        job.begin()
        job.build()
        job.plan()
        shards = [shard for stage in job.stages() for shard in stage]
        for shard in (one for one in shards if one.missing is None):
            job.complete_shard(shard)
        # What a run loads once.
        job.models.generator("text").load()

        def complete() -> None:
            for shard in (one for one in shards if one.missing is not None):
                if worker:
                    job.planned.shards[:] = [shard]
                job.complete_shard(shard)

        taken = timed(complete)
        outcomes = job.finish()["outcomes"]
        assert outcomes["failed"] == 0, outcomes
    job.close()
    return taken


def by_a_bare_stream(url: str, config: Path, n: int, concurrency: int) -> Callable[[], None]:
    """The same requests as a script would send them: all at once, so many under way."""
    import pyarrow.parquet as pq

    def stream() -> None:
        found = pq.read_table(config.parent / "data" / "a.parquet").to_pylist()
        pairs = [
            Example(row["id"], row["text"], _opened(row))
            for row in found
            if row["text"] is not None
        ]
        asked = [
            CaptionRequest(row["id"], _opened(row), (pairs[place % len(pairs)],), tuple(range(n)))
            for place, row in enumerate(row for row in found if row["text"] is None)
        ]
        bare(url, asked, concurrency)

    return stream


def _opened(row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]["bytes"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.15)
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shard", type=int, default=256, help="rows of a shard")
    parser.add_argument("--worker", action="store_true", help="as a worker of a cluster")
    given = parser.parse_args()
    port: Any = multiprocessing.Queue()
    server = multiprocessing.Process(
        target=serve, args=(given.latency, given.sigma, port), daemon=True
    )
    server.start()
    url = f"http://127.0.0.1:{port.get()}/v1"
    allowed = given.concurrency / (given.latency * np.exp(given.sigma**2 / 2))
    sent = given.rows * given.n
    paces: dict[str, list[float]] = {"ours": [], "bare stream": []}
    work: dict[str, list[float]] = {"ours": [], "bare stream": []}
    with tempfile.TemporaryDirectory() as folder:
        config = world(
            Path(folder),
            given.rows,
            given.side,
            given.n,
            {"base_url": url, "concurrency": given.concurrency},
            given.shard,
        )
        for number in range(given.rounds):
            for name in paces if number % 2 else reversed(paces):
                clock, processor = (
                    by_us(config, Path(folder) / f"out-{number}", given.worker)
                    if name == "ours"
                    else timed(by_a_bare_stream(url, config, given.n, given.concurrency))
                )
                paces[name].append(sent / clock)
                work[name].append(1e3 * processor / sent)
    server.terminate()
    server.join()
    served = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = 1e3 * (served.ru_utime + served.ru_stime) / (2 * given.rounds * sent)
    print(
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; the server, a process of its own,"
        f" took {took:.1f} ms of processor a request"
    )
    for name, found in paces.items():
        pace = statistics.median(found)
        print(
            f"{name:12} {pace:6.1f} requests a second ({pace / allowed:.2f} of what the concurrency"
            f" allows), {statistics.median(work[name]):5.1f} ms of processor a request"
        )
    ratios = [one / other for one, other in zip(*paces.values(), strict=True)]
    print(f"ours over bare, by round: {', '.join(f'{one:.2f}' for one in ratios)}")


if __name__ == "__main__":
    main()
