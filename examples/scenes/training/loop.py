"""A training loop that can be stopped and resumed: state on disk, seeded by the step.

Every step draws from a generator seeded by (seed, step), so that a resumed run sees what an
unbroken one would have seen, whichever process prepares it. A state has no device of its own: what
a GPU has begun, a CPU can go on with.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
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


def seed_step(seed: int, step: int) -> np.random.Generator:
    """Seed torch for a step and give numpy's generator of it."""
    import torch

    torch.manual_seed(hash((seed, step)) & 0x7FFFFFFF)
    return np.random.default_rng([seed, step])


def convert(nested: Any, change: Callable[[Any], Any]) -> Any:
    """Apply `change` to the leaves of nested mappings, lists and tuples."""
    if isinstance(nested, Mapping):
        return {key: convert(part, change) for key, part in nested.items()}
    if isinstance(nested, (list, tuple)):
        return type(nested)([convert(part, change) for part in nested])
    return change(nested)


def as_array(leaf: Any) -> Any:
    """Turn a tensor into an array, which goes from process to process without shared memory."""
    import torch

    return leaf.numpy() if isinstance(leaf, torch.Tensor) else leaf


def as_tensor(leaf: Any, device: str) -> Any:
    """Move an array or a tensor to the device; leave anything else as it is."""
    import torch

    if isinstance(leaf, np.ndarray):
        leaf = torch.from_numpy(leaf)
    return leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf


class Prepared:
    """What each step learns from, by the step's number, as torch's `DataLoader` asks for it."""

    def __init__(self, batch: Callable[[np.random.Generator], Any], seed: int, steps: int) -> None:
        self.batch, self.seed, self.steps = batch, seed, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        return convert(self.batch(seed_step(self.seed, step)), as_array)


def batches(prepared: Prepared, first: int, workers: int) -> Iterator[Any]:
    """Give what the steps from `first` on learn from, in order, prepared by so many processes."""
    from torch.utils.data import DataLoader

    # What prepares is made inside the stages, so that processes can only be forked.
    ahead: dict[str, Any] = {
        "prefetch_factor": 4,
        "timeout": 300,
        "multiprocessing_context": "fork",
    }
    given: Any = prepared
    return iter(
        DataLoader(
            given,
            batch_size=None,
            sampler=range(first, len(prepared)),
            collate_fn=lambda held: held,
            num_workers=workers,
            **(ahead if workers else {}),
        )
    )


def train(
    name: str,
    model: nn.Module,
    loss: Callable[[nn.Module, Any], tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]],
    schedule: Schedule,
    work: Path,
    seed: int,
    export: Callable[[nn.Module], None],
    save_every: float = 180.0,
    *,
    batch: Callable[[np.random.Generator], Any] | None = None,
    device: str = "cpu",
    workers: int = 0,
) -> nn.Module:
    """Train a stage to its end, resuming from its state where there is one.

    Parameters
    ----------
    name : str
        Names the state file `work/state/<name>.pt`.
    model : Module
        Holds every parameter that learns; moved to the device.
    loss : callable
        Given the model and what `batch` prepared (the step's generator where there is no `batch`),
        gives the loss and figures to log, numbers or detached scalars. On a GPU it is called under
        autocast to bfloat16.
    export : callable
        Given the averaged model (in eval mode, on the CPU), writes the stage's checkpoint folder;
        called at every save, so that a stopped run leaves a loadable checkpoint.
    batch : callable, optional
        Given the step's generator, prepares on the CPU what the step learns from: arrays, tensors
        and anything else in mappings, lists and tuples. Arrays arrive as tensors on the device.
    device : str
        `cpu` or `cuda`.
    workers : int
        How many processes prepare batches ahead; with 0 this one does. What is learned is the same.

    Returns
    -------
    Module
        The model with its averaged weights, in eval mode, on the CPU.

    Raises
    ------
    SystemExit
        After a SIGTERM, once the state is saved.
    """
    import torch

    on_gpu = device.startswith("cuda")
    path = work / "state" / f"{name}.pt"
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=schedule.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-8,
        weight_decay=schedule.weight_decay,
    )

    def follow(held: Any, new: Any, count: torch.Tensor) -> None:
        if held[0].is_floating_point():
            torch._foreach_lerp_(held, new, schedule.share(int(count)))
        else:
            torch._foreach_copy_(held, new)

    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True, multi_avg_fn=follow)
    average.to(device)
    step, elapsed = 0, 0.0
    if path.is_file():
        state = torch.load(path, weights_only=False, map_location="cpu")
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, elapsed = state["step"], state["elapsed"]
        logger.info("%s: resumed at step %d", name, step)
    stopped: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))

    def save() -> None:
        held = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "elapsed": elapsed,
        }
        save_atomically(convert(held, lambda leaf: as_tensor(leaf, "cpu")), path)
        average.module.eval()
        average.to("cpu")
        export(average.module)
        average.to(device)

    started = saved = logged = time.monotonic()
    figures: dict[str, list[float | torch.Tensor]] = {}
    finished = step >= schedule.steps or elapsed >= 60 * schedule.minutes
    ahead = None
    if batch is not None and not finished:
        ahead = batches(Prepared(batch, seed, schedule.steps), step, workers)
    model.train()
    while not finished and not stopped:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step, elapsed)
        given = (
            None if ahead is None else convert(next(ahead), lambda leaf: as_tensor(leaf, device))
        )
        rng = seed_step(seed, step)
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=on_gpu):
            value, parts = loss(model, rng if ahead is None else given)
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
        for key, part in {"loss": value.detach(), **parts}.items():
            figures.setdefault(key, []).append(part)
        if now - logged > (10 if on_gpu else 30):
            text = " ".join(
                f"{key} {np.mean([float(part) for part in parts]):.4f}"
                for key, parts in figures.items()
            )
            speed = len(figures["loss"]) / (now - logged)
            logger.info("%s: step %d, %.0f s, %.2f steps/s: %s", name, step, elapsed, speed, text)
            figures, logged = {}, now
        if now - saved > save_every:
            save()
            saved = time.monotonic()
        finished = step >= schedule.steps or elapsed >= 60 * schedule.minutes
    # Ends the processes that prepare.
    del ahead
    save()
    average.to("cpu")
    signal.signal(signal.SIGTERM, previous)
    if stopped:
        raise SystemExit(143)
    logger.info("%s: finished at step %d after %.0f s", name, step, elapsed)
    result: Any = average.module
    return result
