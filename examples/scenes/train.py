"""Train the example world's checkpoints: `python -m examples.scenes.train STAGE`.

Stages resume from their state under the work folder; a SIGTERM saves and stops.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
from pathlib import Path

from examples.scenes.sources import HERE, WORK
from examples.scenes.training.means import Means, choose_device
from examples.scenes.training.pool import SCENES, load_pool

STAGES = ("encoder", "judge", "sight", "captioner", "vae", "unet")
# Steps that a stage takes when nothing cuts it short; see README.md for what was run.
STEPS = {
    "encoder": 4000,
    "judge": 3000,
    "sight": 4000,
    "captioner": 6000,
    "vae": 4000,
    "unet": 8000,
}
SEEDS = {name: seed for seed, name in enumerate(STAGES, 1)}
QUICK_SCENES = 64


def run_stage(stage: str, work: Path, out: Path, means: Means, begin: Path | None = None) -> None:
    """Train one stage; later stages read what earlier ones left in `work` and `out`.

    The captioner goes on from the one in `begin`, where that is given.
    """
    seed = SEEDS[stage]
    if stage in ("encoder", "judge"):
        from examples.scenes.training.encoder import train_encoder

        folder = out / ("encoder" if stage == "encoder" else "encoder-judge")
        train_encoder(stage, work, folder, seed, means)
    elif stage == "sight":
        from examples.scenes.training.sight import train_sight

        train_sight(work, out / "encoder", seed, means)
    elif stage == "captioner":
        from examples.scenes.training.captioner import train_captioner

        train_captioner(work, out / "captioner", seed, means, begin)
    elif stage == "vae":
        from examples.scenes.training.vae import train_vae

        train_vae(work, seed, means)
    else:
        from examples.scenes.training.unet import train_unet

        train_unet(work, out, seed, means)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("pool", *STAGES, "all"))
    parser.add_argument("--steps", type=int, help="steps of the stage; its full run by default")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time bound of a stage")
    parser.add_argument("--batch", type=int, help="rows of a batch; the stage's own by default")
    parser.add_argument("--scenes", type=int, help=f"size of the pool; {SCENES:,} by default")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if any"
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that prepare batches ahead"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="checkpoints; beside this file by default")
    parser.add_argument("--work", type=Path, help="state, pool and models; .work by default")
    parser.add_argument(
        "--begin", type=Path, help="a captioner to go on from; for the stage captioner alone"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps of each, for tests")
    options = parser.parse_args()
    if options.begin and options.stage != "captioner":
        parser.error("--begin is for the stage captioner")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Processes are forked, which the threads of a tokenizer don't outlive.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(options.threads)
    # Vanishing gradients of the first steps are subnormal, which slows products ten times.
    torch.set_flush_denormal(True)
    work = options.work or (WORK / "quick" if options.quick else WORK)
    out = options.out or (work / "checkpoints" if options.quick else HERE / "checkpoints")
    scenes = options.scenes or (QUICK_SCENES if options.quick else SCENES)
    device = choose_device(options.device)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    load_pool(work, scenes, max(1, options.workers))
    stages = {"all": STAGES, "pool": ()}.get(options.stage, (options.stage,))
    for stage in stages:
        steps = options.steps or (4 if options.quick else STEPS[stage])
        means = Means(steps, options.minutes, scenes, device, options.workers, options.batch)
        run_stage(stage, work, out, means, options.begin)


if __name__ == "__main__":
    main()
