"""What a run adds to its generators: CPU milliseconds a candidate, and their share.

Run as ``OMP_NUM_THREADS=1 python -m tests.benchmarks.run_overhead`` from the checkout. The example
world is completed without Prefect, by kind of missing half; the generator's own CPU seconds
are those of the thread that calls it, so that one thread must be all it uses.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from kb.embeddings import MODALITIES
from pipeline.config.config import load_config
from pipeline.job import Job

EXAMPLE = Path(__file__).parents[2] / "examples" / "scenes" / "dmc.yaml"


def watch(job: Job) -> Counter[str]:
    """Count the CPU seconds and the candidates of every generator that the job asks."""
    spent: Counter[str] = Counter()
    create = job.models.generator

    def generator(missing: Any) -> Any:
        part = create(missing)
        if "generate" not in vars(part):
            part.load()
            generate = part.generate

            def timed(requests: Any) -> Any:
                started = time.thread_time()
                answers = generate(requests)
                spent["seconds"] += time.thread_time() - started
                spent["candidates"] += sum(len(answer.candidates) for answer in answers)
                return answers

            part.generate = timed
        return part

    job.models.generator = generator  # type: ignore[method-assign]
    return spent


def measure(shards: int) -> dict[str, dict[str, float]]:
    """Complete shards of each kind, after one that loads the models."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        job = Job(load_config(EXAMPLE).model_copy(update={"output": folder}))
        with job.lock():
            job.begin()
            job.build()
            plan = job.plan()
            spent = watch(job)
            for missing in MODALITIES:
                first, *others = [shard for shard in plan.shards if shard.missing == missing]
                job.complete_shard(first)
                spent.clear()
                started = time.process_time()
                for shard in others[:shards]:
                    job.complete_shard(shard)
                all_of_it = time.process_time() - started
                count = spent["candidates"]
                added = 1000 * (all_of_it - spent["seconds"]) / count
                figures[missing] = {
                    "candidates": count,
                    "generator_ms": round(1000 * spent["seconds"] / count, 2),
                    "added_ms": round(added, 2),
                    "added_share": round(1 - spent["seconds"] / all_of_it, 3),
                }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    print(json.dumps(measure(options.shards), indent=2))


if __name__ == "__main__":
    main()
