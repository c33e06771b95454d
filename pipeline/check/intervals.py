"""Intervals: how sure a mean is, a difference of two, or a share of the way between two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
        return f"{self.mean:z.3f} ± {self.half:.3f}"


def interval(
    values: Sequence[float] | np.ndarray, clusters: Sequence[str] | None = None
) -> Interval:
    """Mean of a few values and its 95 % interval by Student's t.

    Parameters
    ----------
    values : [n]
    clusters : n names, or None
        Values of one name belong together, such as those of a row that is in several draws: only
        the clusters are independent. The error is that of a mean of all values by linearisation
        (Liang and Zeger 1986), which with one value a cluster is the plain one.

    Raises
    ------
    ValueError
        Fewer than two values or clusters.
    """
    from scipy.stats import t

    held = np.asarray(values, dtype=np.float64)
    if held.ndim != 1 or len(held) < 2:
        raise ValueError(f"an interval needs at least 2 values; got shape {held.shape}")
    sums = held - held.mean()
    if clusters is not None:
        sums = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=sums)
    count = len(sums)
    if count < 2:
        raise ValueError(f"an interval needs at least 2 clusters; got {count}")
    error = np.sqrt(count / (count - 1) * np.square(sums).sum()) / len(held)
    return Interval(float(held.mean()), float(t.ppf(0.975, count - 1) * error))


def paired(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    clusters: Sequence[str] | None = None,
) -> Interval:
    """Interval of the mean of a − b, value by value."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"paired values must be equally many; got {first.shape} and {second.shape}"
        )
    return interval(first - second, clusters)


def share_of(
    own: Sequence[float] | np.ndarray,
    low: Sequence[float] | np.ndarray,
    high: Sequence[float] | np.ndarray,
    clusters: Sequence[str] | None = None,
) -> Interval:
    """Share of the way from the mean of `low` to that of `high`.

    The interval is that of a ratio of means over paired values, by linearisation: of
    (gain − share · span) / mean span, so that what the values of both have in common is not counted
    twice.

    Raises
    ------
    ValueError
        `high` is not above `low`.
    """
    base = np.asarray(low, dtype=np.float64)
    gain, span = np.asarray(own) - base, np.asarray(high) - base
    wide = float(span.mean())
    if wide <= 0:
        raise ValueError(f"there is no way to have a share of; got a mean span of {wide:g}")
    share = float(gain.mean()) / wide
    return Interval(share, interval((gain - share * span) / wide, clusters).half)
