"""Train the example world's checkpoints: `python -m examples.emoji.train STAGE`.

Stages resume from their state under the work folder; a SIGTERM saves and stops.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
from pathlib import Path

from examples.emoji.sources import HERE, WORK

STAGES = ("vae", "encoder", "judge", "unet", "decoder", "sight", "captioner")
# Steps that a stage takes when nothing cuts it short; see README.md for what was run.
STEPS = {
    "vae": 6000,
    "encoder": 3000,
    "judge": 3000,
    "unet": 7000,
    "decoder": 2500,
    "sight": 6000,
    "captioner": 6000,
}
SEEDS = {"vae": 1, "encoder": 2, "judge": 3, "unet": 4, "captioner": 5, "decoder": 6, "sight": 7}


def run_stage(stage: str, work: Path, out: Path, steps: int, minutes: float) -> None:
    """Train one stage; later stages read what earlier ones left in `work` and `out`."""
    if stage == "vae":
        from examples.emoji.training.vae import train_vae

        train_vae(work, SEEDS[stage], steps, minutes)
    elif stage in ("encoder", "judge"):
        from examples.emoji.training.encoder import train_encoder

        folder = out / ("encoder" if stage == "encoder" else "encoder-judge")
        train_encoder(stage, work, folder, SEEDS[stage], steps, minutes)
    elif stage == "unet":
        from examples.emoji.training.unet import train_unet

        train_unet(work, out, SEEDS[stage], steps, minutes)
    elif stage == "decoder":
        from examples.emoji.training.decoder import train_decoder

        train_decoder(work, out, SEEDS[stage], steps, minutes)
    elif stage == "sight":
        from examples.emoji.training.sight import train_sight

        train_sight(work, out / "encoder", SEEDS[stage], steps, minutes)
    else:
        from examples.emoji.training.captioner import train_captioner

        train_captioner(work, out / "captioner", SEEDS[stage], steps, minutes)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--steps", type=int, help="steps of the stage; its full run by default")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time bound of a stage")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="checkpoints; beside this file by default")
    parser.add_argument("--work", type=Path, help="state and models; .work by default")
    parser.add_argument("--quick", action="store_true", help="a few steps of each, for tests")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    import torch

    torch.set_num_threads(options.threads)
    # Vanishing gradients of the first steps are subnormal, which slows products ten times.
    torch.set_flush_denormal(True)
    work = options.work or (WORK / "quick" if options.quick else WORK)
    out = options.out or (work / "checkpoints" if options.quick else HERE / "checkpoints")
    for stage in STAGES if options.stage == "all" else (options.stage,):
        steps = options.steps or (8 if options.quick else STEPS[stage])
        run_stage(stage, work, out, steps, options.minutes)


if __name__ == "__main__":
    main()
