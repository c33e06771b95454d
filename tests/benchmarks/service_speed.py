"""Requests to a server: our processor time and pace beside a bare asynchronous loop's.

    python -m tests.benchmarks.service_speed --rows 64 --latency 0.2 --concurrency 64

The server is a process of its own, which answers after a pause. The bare loop encodes each picture
once as JPEG and posts it by aiohttp, as many at once as we do. Both sides run in one process, one
after the other, after a request that warms each up.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from generators.base import CaptionRequest, Example
from generators.openai_captions import OpenAICaptioner, OpenAICaptionSettings


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause: Callable[[], float]
) -> None:
    body = json.dumps({"choices": [{"message": {"content": "a hat"}, "finish_reason": "stop"}]})
    reply = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            (length,) = (
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            await reader.readexactly(length)
            await asyncio.sleep(pause())
            writer.write(f"{reply}\r\n\r\n{body}".encode())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def serve(latency: float, sigma: float, port: Any) -> None:
    """Answer on the loopback until killed; the port is told through a queue.

    Latencies are lognormal, with their median and the deviation of their logarithm; sigma 0 is constant.
    """
    random = np.random.default_rng(0)

    def pause() -> float:
        return float(latency * np.exp(sigma * random.standard_normal()))

    async def run() -> None:
        server = await asyncio.start_server(
            lambda reader, writer: _answer(reader, writer, pause),
            "127.0.0.1",
            0,
            limit=1 << 24,
        )
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def requests(rows: int, side: int, n: int, seed: int) -> list[CaptionRequest]:
    """Rows of photograph-like noise, each with one example that eight rows share."""
    random = np.random.default_rng(seed)

    def picture() -> Image.Image:
        coarse = random.integers(0, 256, (side // 16, side // 16, 3)).astype(np.uint8)
        return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)

    made = []
    for row in range(rows):
        if row % 8 == 0:
            example = Example(f"pair-{row}", "a small red hat", picture())
        made.append(CaptionRequest(f"row-{row}", picture(), (example,), tuple(range(n))))
    return made


def bare(url: str, asked: list[CaptionRequest], concurrency: int) -> None:
    """What a short script of one's own would do."""

    def address(image: Image.Image) -> str:
        image = image.copy()
        image.thumbnail((768, 768))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

    async def run() -> None:
        gate = asyncio.Semaphore(concurrency)
        held: dict[str, str] = {}
        connector = aiohttp.TCPConnector(limit=concurrency)
        async with aiohttp.ClientSession(connector=connector) as client:

            async def one(messages: list[dict[str, Any]], seed: int) -> None:
                async with gate:
                    body = {"model": "m", "messages": messages, "max_tokens": 40, "seed": seed}
                    async with client.post(f"{url}/chat/completions", json=body) as reply:
                        reply.raise_for_status()
                        await reply.json()

            async def row(request: CaptionRequest) -> None:
                (example,) = request.examples
                if example.id not in held:
                    held[example.id] = address(example.image)
                turns = [held[example.id], address(request.image)]
                messages: list[dict[str, Any]] = [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": turn}},
                            {"type": "text", "text": "Please write a caption of the image."},
                        ],
                    }
                    for turn in turns
                ]
                messages.insert(1, {"role": "assistant", "content": example.text})
                await asyncio.gather(*(one(messages, seed) for seed in request.seeds))

            await asyncio.gather(*(row(request) for request in asked))

    asyncio.run(run())


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds on the clock and of our processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--concurrency", type=int, default=64)
    given = parser.parse_args()
    port: Any = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(given.latency, 0.0, port), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{port.get()}/v1"
    settings = OpenAICaptionSettings(
        base_url=url,
        model="m",
        send_data=True,
        api_key_env=None,
        concurrency=given.concurrency,
    )
    ours = OpenAICaptioner(settings)
    asked = requests(given.rows, given.side, given.n, 1)

    def by_us() -> None:
        assert all(answer.error is None for answer in ours.generate(asked))

    warm = requests(1, given.side, 1, 2)
    ours.generate(warm)
    bare(url, warm, given.concurrency)
    sent = given.rows * given.n
    allowed = given.concurrency / given.latency
    figures = {
        "ours": timed(by_us),
        "bare loop": timed(lambda: bare(url, asked, given.concurrency)),
    }
    for name, (clock, processor) in figures.items():
        print(
            f"{name:10} {1e3 * processor / sent:6.1f} ms of processor a request,"
            f" {sent / clock:6.1f} requests a second"
            f" ({sent / clock / allowed:.2f} of what the concurrency allows)"
        )
    print(f"processor, ours over bare: {figures['ours'][1] / figures['bare loop'][1]:.2f}")
    ours.close()
    server.terminate()


if __name__ == "__main__":
    main()
