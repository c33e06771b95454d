"""A whole job with full-size models of random weights on disk, as `tests.benchmarks.gpu` measures it.

The models are written in their hubs' layouts and named in a config like anybody's; encoding, the
knowledge base, retrieval, both generators, judging and writing are those of a run.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kb.embeddings import MODALITIES
from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds
from tests.benchmarks import full_size
from tests.benchmarks.build_speed import write_model

# Complete pairs, rows without a text, rows without an image.
ROWS, SMALL = (48, 96, 4), (8, 4, 2)
CANDIDATES = 4


def write(folder: Path, device: str, small: bool) -> Path:
    """Write models, dataset and config; gives the config."""
    import torch

    dtype = torch.float32 if device == "cpu" else torch.float16
    model, processor = full_size.blip2(device, dtype, small)
    model.save_pretrained(folder / "blip2")
    processor.save_pretrained(folder / "blip2")
    del model
    full_size.sdxl(device, dtype, small).save_pretrained(folder / "sdxl")
    write_model(folder / "encoder", "tiny" if small else "ViT-B-32")
    complete, texts, images = SMALL if small else ROWS
    data = quick_worlds.rows(complete, texts, images)
    quick_worlds.write(folder / "data" / "a.parquet", data)
    return quick_worlds.config(
        folder,
        encoder={"kind": "open_clip", "model": str(folder / "encoder")},
        captioner={
            "kind": "blip2",
            "model": str(folder / "blip2"),
            "max_new_tokens": 4 if small else 40,
        },
        image_generator={
            "kind": "sdxl",
            "model": str(folder / "sdxl"),
            "steps": 2 if small else 30,
            "size": 32 if small else 1024,
        },
        knowledge_base={"device": "auto"},
        generation={"n": CANDIDATES},
        run={"check": 0},
    )


def figures(device: str, small: bool) -> Iterator[tuple[str, float, str]]:
    """Seconds of writing, building and loading, and what a run completes a minute."""
    with tempfile.TemporaryDirectory() as made:
        started = time.perf_counter()

        def passed() -> float:
            nonlocal started
            before, started = started, time.perf_counter()
            return started - before

        config = write(Path(made), device, small)
        yield "models written", passed(), "s"
        job = Job(load_config(config))
        with job.lock():
            job.begin()
            job.build()
            yield "knowledge base of the pairs", passed(), "s"
            plan = job.plan()
            for missing in MODALITIES:
                job.models.generator(missing).load()
                yield f"loading what generates {missing}s", passed(), "s"
                outcomes: Counter[str] = Counter()
                for shard in plan.shards:
                    if shard.missing == missing:
                        outcomes.update(job.complete_shard(shard).rows["status"].to_pylist())
                if set(outcomes) != {"completed"}:
                    raise SystemExit(f"rows without {missing}: {dict(outcomes)}")
                name = f"rows without {missing}, {CANDIDATES} candidates"
                yield name, 60 * outcomes.total() / passed(), "rows/min"
            job.finish()
