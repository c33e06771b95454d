"""What a GPU does with it all, in one call of at most eight minutes.

Each part runs in a process of its own, ends when its time is up, and takes none of the others with
it: full-size BLIP-2 and SDXL of random weights beside bare loops of transformers and diffusers,
an open_clip encoder beside a bare DataLoader, faiss's index and the alignment's neighbours on the GPU
beside the CPU, the training of the mapping, a whole job, and the most memory that each took. It
prints one table, for the pages that say "not measured".

    python -m tests.benchmarks.gpu            # on a machine with a GPU
    python -m tests.benchmarks.gpu --small    # the same parts at toy size on a CPU, to know that they run
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks import gpu_generators
from tests.benchmarks.gpu_timing import Figures, peak, seconds

# Seconds that each part may take at most.
BUDGETS = {
    "captions": 60,
    "images": 100,
    "encoding": 50,
    "index": 70,
    "neighbours": 30,
    "mapping": 60,
    "job": 110,
}


def encoding(device: str, small: bool) -> Figures:
    """Pictures of 640 x 480 from JPEGs on disk through ViT-B-32, ours and a DataLoader's."""
    import tempfile
    from pathlib import Path

    from tests.benchmarks import build_speed

    count = 16 if small else 1024
    with tempfile.TemporaryDirectory() as made:
        model = Path(made) / "model"
        build_speed.write_model(model, "tiny" if small else "ViT-B-32")
        paths = build_speed.write_pictures(Path(made) / "pictures", count, (640, 480))
        found = build_speed.rates(Path(made), paths, model, build_speed.BATCH, 1, alone=False)
    for name, rates in found.items():
        yield name, rates[0], "pictures/s"


def job(device: str, small: bool) -> Figures:
    """A run of models on disk, from the scan to the summary."""
    from tests.benchmarks.gpu_job import figures

    return figures(device, small)


def index(device: str, small: bool) -> Figures:
    """faiss's inverted lists over a million rows of 512: a thousand queries, GPU and CPU."""
    from kb.index import EmbeddingIndex
    from kb.index.kinds import IndexSettings

    base = _unit(3000 if small else 1_000_000, 512)
    queries = base[: 100 if small else 1000]
    started = time.perf_counter()
    built = EmbeddingIndex.build(base, IndexSettings(index="ivf", probes=32), device=device)
    yield "building", time.perf_counter() - started, "s"
    yield f"search on {device}", 1000 * seconds(lambda: built.search(queries, 50)), "ms"
    built.device = "cpu"
    yield "search on the CPU", 1000 * seconds(lambda: built.search(queries, 50)), "ms"


def neighbours(device: str, small: bool) -> Figures:
    """Mutual neighbours under CSLS of the alignment's largest sample."""
    from kb.alignment.csls import mutual_neighbours

    count = 500 if small else 10_000
    one, other = _unit(count, 512), _unit(count, 512, 1)
    for where in dict.fromkeys((device, "cpu")):
        found = seconds(lambda where=where: mutual_neighbours(one, other, 10, device=where))  # type: ignore[misc]
        yield f"neighbours on {where}", found, "s"


def mapping(device: str, small: bool) -> Figures:
    """Fitting the mapping of 512-d embeddings, its contest included."""
    from kb.mapping import CrossModalMapping

    count = 200 if small else 20_000
    pairs = {"image": _unit(count, 512), "text": _unit(count, 512, 1)}
    for where in dict.fromkeys((device, "cpu") if small else (device,)):
        started = time.perf_counter()
        CrossModalMapping(device=where).fit(pairs["image"], pairs["text"])
        yield f"fit on {where}", time.perf_counter() - started, "s"


def _unit(count: int, width: int, seed: int = 0) -> Any:
    import numpy as np

    rows = np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


PARTS: dict[str, Callable[[str, bool], Figures]] = {
    "captions": gpu_generators.captions,
    "images": gpu_generators.images,
    "encoding": encoding,
    "index": index,
    "neighbours": neighbours,
    "mapping": mapping,
    "job": job,
}


def run_part(name: str, small: bool) -> None:
    """Do one part and print each figure as it is known, as JSON."""
    import torch

    device = "cuda" if torch.cuda.is_available() and not small else "cpu"
    for figure in PARTS[name](device, small):
        print(json.dumps(figure), flush=True)
    print(json.dumps(("most memory", peak() / 1e9, "GB")), flush=True)


def measure(small: bool, budgets: dict[str, int] | None = None) -> list[dict[str, Any]]:
    """The figures of all parts; a part that failed or ran out of time says so in the place of one."""
    found: list[dict[str, Any]] = []
    for name, budget in (budgets or BUDGETS).items():
        before = len(found)
        command = [sys.executable, "-m", "tests.benchmarks.gpu", "--part", name]
        command += ["--small"] * small
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=budget)
            out, why = done.stdout, None
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                why = (done.stderr.strip().splitlines() or ["no message"])[-1]
        except subprocess.TimeoutExpired as error:
            # What was printed until then comes as bytes, whatever was asked for.
            out = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
            why = f"not done within {budget} s"
        for line in out.splitlines():
            if line.startswith("["):
                what, value, unit = json.loads(line)
                found.append({"part": name, "what": what, "value": value, "unit": unit})
        if why is not None:
            found.append({"part": name, "what": "failed", "value": None, "unit": why})
        # What is known stays known if somebody ends the whole.
        print(table(found[before:]), file=sys.stderr, flush=True)
    return found


def table(found: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = ["| part | what | figure |", "| --- | --- | --- |"]
    for one in found:
        figure = one["unit"] if one["value"] is None else f"{one['value']:.4g} {one['unit']}"
        lines.append(f"| {one['part']} | {one['what']} | {figure} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--part", choices=list(PARTS))
    arguments = parser.parse_args()
    if arguments.part:
        run_part(arguments.part, arguments.small)
    else:
        print(table(measure(arguments.small)))
