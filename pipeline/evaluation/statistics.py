"""Ranks, recall, and intervals: how sure a difference between two variants is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RECALL_AT = (1, 5, 10)


def ranks(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """How many keys are more similar to each query than its own.

    Parameters
    ----------
    queries, keys : unit rows [n, d]
        Row i of one belongs to row i of the other.

    Returns
    -------
    int64 [n]
        0 where the own key comes first; ties are given to the own key's favour only against keys
        of a later row.
    """
    similarity = queries @ keys.T
    own = np.diag(similarity)[:, None]
    earlier = np.tri(len(keys), k=-1, dtype=bool)
    return ((similarity > own) | ((similarity == own) & earlier)).sum(axis=1)


def recall(ranks: np.ndarray, k: int) -> float:
    """Share of ranks below k."""
    return float((np.asarray(ranks) < k).mean())


@dataclass(frozen=True)
class Interval:
    """A mean and half the width of its 95 % interval."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.half:.3f}"


def interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean of a few independent values and its 95 % interval by Student's t.

    Raises
    ------
    ValueError
        Fewer than two values.
    """
    from scipy.stats import t

    held = np.asarray(values, dtype=np.float64)
    if held.ndim != 1 or len(held) < 2:
        raise ValueError(f"an interval needs at least 2 values; got shape {held.shape}")
    error = held.std(ddof=1) / np.sqrt(len(held))
    return Interval(float(held.mean()), float(t.ppf(0.975, len(held) - 1) * error))


def paired(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Interval:
    """Interval of the mean of a − b, value by value."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"paired values must be equally many; got {first.shape} and {second.shape}"
        )
    return interval(first - second)
