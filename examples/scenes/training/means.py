"""What a stage learns with: for how long, on which device, from how many scenes at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.scenes.training import augment

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Means:
    """What a stage is given to learn with.

    Attributes
    ----------
    steps : int
        Optimizer steps in all.
    minutes : float
        Wall-clock bound.
    scenes : int
        Size of the pool of drawn scenes.
    device : str
        `cpu` or `cuda`.
    workers : int
        Processes that prepare batches ahead.
    batch : int or None
        Rows of a batch; the stage's own number where it is None.
    """

    steps: int
    minutes: float = math.inf
    scenes: int = 12_000
    device: str = "cpu"
    workers: int = 0
    batch: int | None = None

    def how(self) -> dict[str, Any]:
        """Give what `train` is to be told; it saves often on a GPU, where minutes are a stage."""
        save_every = 180.0 if self.device == "cpu" else 40.0
        return {"device": self.device, "workers": self.workers, "save_every": save_every}

    def alone(self) -> Means:
        """Give the same without helping processes, where preparing is only to draw numbers."""
        return replace(self, workers=0)

    def rows(self, usual: int) -> int:
        """Give how many rows a batch has."""
        return self.batch or usual

    def hold(self, pictures: np.ndarray) -> Callable[[Any], torch.Tensor]:
        """Put pictures where the device reaches them and give what takes some of them.

        Returns
        -------
        callable
            Given positions (n,), an array or a tensor, gives float32 (n, 3, h, w) on [0, 1], on
            the device. On a CPU the pictures stay in the file that they are in.
        """
        import torch

        if self.device == "cpu":
            return lambda rows: augment.to_tensor(pictures[np.asarray(rows)])
        held = torch.from_numpy(np.array(pictures)).to(self.device)

        def take(rows: Any) -> torch.Tensor:
            if isinstance(rows, np.ndarray):
                rows = torch.from_numpy(rows)
            return augment.to_tensor(held[rows.to(held.device)])

        return take


def choose_device(name: str) -> str:
    """Give `cpu` or `cuda`; `auto` is the GPU where there is one.

    Raises
    ------
    SystemExit
        When a GPU is asked for and there is none.
    """
    import torch

    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise SystemExit("--device: cuda was asked for, and torch finds no GPU")
    return "cuda" if there and name != "cpu" else "cpu"


def draw_seed(rng: np.random.Generator) -> int:
    """Draw what a step's augmentation is seeded by, where the batch is prepared elsewhere."""
    return int(rng.integers(2**62))
