"""A training loop that can be stopped and resumed: state on disk, seeded by the step.

Every step draws from a generator seeded by (seed, step), so that a resumed run sees what an
unbroken one would have seen.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns.

    Attributes
    ----------
    steps : int
        Optimizer steps in all.
    learning_rate : float
        Peak; reached after `warmup` steps, then a cosine down to zero.
    minutes : float
        Wall-clock bound: the rate falls with the larger of the two shares used up.
    average : float
        Decay of the moving average of the weights, which is what is exported.
    """

    steps: int
    learning_rate: float
    minutes: float = math.inf
    weight_decay: float = 0.01
    warmup: int = 100
    average: float = 0.998
    clip: float = 1.0

    def rate(self, step: int, elapsed: float) -> float:
        """Give the learning rate at a step, `elapsed` seconds into the stage."""
        done = max(step / self.steps, elapsed / (60 * self.minutes))
        falling = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * falling

    def share(self, count: int) -> float:
        """Give the share of the newest weights in the average after `count` updates.

        A fixed decay would keep the untrained weights in a short run's average.
        """
        return max(1 - self.average, 9 / (10 + count))


def save_atomically(state: object, path: Path) -> None:
    """Write a torch state beside its place and rename it in."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    torch.save(state, beside)
    os.replace(beside, path)


def train(
    name: str,
    model: nn.Module,
    loss: Callable[[nn.Module, np.random.Generator], tuple[torch.Tensor, dict[str, float]]],
    schedule: Schedule,
    work: Path,
    seed: int,
    export: Callable[[nn.Module], None],
    save_every: float = 180.0,
) -> nn.Module:
    """Train a stage to its end, resuming from its state where there is one.

    Parameters
    ----------
    name : str
        Names the state file `work/state/<name>.pt`.
    model : Module
        Holds every parameter that learns.
    loss : callable
        Given the model and the step's generator, gives the loss and figures to log.
    export : callable
        Given the averaged model (in eval mode), writes the stage's checkpoint folder; called at
        every save, so that a stopped run leaves a loadable checkpoint.

    Returns
    -------
    Module
        The model with its averaged weights, in eval mode.

    Raises
    ------
    SystemExit
        After a SIGTERM, once the state is saved.
    """
    import torch

    path = work / "state" / f"{name}.pt"
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=schedule.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-8,
        weight_decay=schedule.weight_decay,
    )
    average = torch.optim.swa_utils.AveragedModel(
        model,
        use_buffers=True,
        avg_fn=lambda held, new, count: held + (new - held) * schedule.share(int(count)),
    )
    step, elapsed = 0, 0.0
    if path.is_file():
        state = torch.load(path, weights_only=False)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, elapsed = state["step"], state["elapsed"]
        logger.info("%s: resumed at step %d", name, step)
    stopped: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))

    def save() -> None:
        save_atomically(
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "elapsed": elapsed,
            },
            path,
        )
        average.module.eval()
        export(average.module)

    started = saved = logged = time.monotonic()
    figures: dict[str, list[float]] = {}
    finished = step >= schedule.steps or elapsed >= 60 * schedule.minutes
    model.train()
    while not finished and not stopped:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step, elapsed)
        torch.manual_seed(hash((seed, step)) & 0x7FFFFFFF)
        value, parts = loss(model, np.random.default_rng([seed, step]))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        if torch.isfinite(norm):
            optimizer.step()
            average.update_parameters(model)
        step += 1
        now = time.monotonic()
        elapsed += now - started
        started = now
        for key, part in {"loss": float(value.detach()), **parts}.items():
            figures.setdefault(key, []).append(part)
        if now - logged > 30:
            text = " ".join(f"{key} {np.mean(parts):.4f}" for key, parts in figures.items())
            speed = len(figures["loss"]) / (now - logged)
            logger.info("%s: step %d, %.0f s, %.2f steps/s: %s", name, step, elapsed, speed, text)
            figures, logged = {}, now
        if now - saved > save_every:
            save()
            saved = started = time.monotonic()
        finished = step >= schedule.steps or elapsed >= 60 * schedule.minutes
    save()
    signal.signal(signal.SIGTERM, previous)
    if stopped:
        raise SystemExit(143)
    logger.info("%s: finished at step %d after %.0f s", name, step, elapsed)
    result: Any = average.module
    return result
