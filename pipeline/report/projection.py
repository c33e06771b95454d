"""The knowledge base in two dimensions, before and after purification.

Principal components of the raw embeddings; both panels share the axes, so that what alignment
moved and what the filter dropped can be seen side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kb.embeddings import Rows


@dataclass(frozen=True)
class Projection:
    """Points of two panels, by source.

    Attributes
    ----------
    before, after : dict of str to ndarray of shape [n, 2]
        Sampled points of each source on the first two principal components.
    explained : float
        Share of the raw embeddings' variance that the two components carry, 0..1.
    total_before, total_after : int
        How many points there were before sampling.
    """

    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    explained: float
    total_before: int
    total_after: int


def project(
    before: Mapping[str, Rows],
    after: Mapping[str, Rows],
    *,
    points: int = 3000,
    random_state: int = 0,
) -> Projection:
    """Project embeddings, by source, on the first two principal components of `before`.

    Parameters
    ----------
    before : mapping of str to array of shape [n, d]
        Raw embeddings of each source, the dataset's own first; memory maps and subsets of them
        are read only where they are sampled.
    after : mapping of str to array of shape [m, d]
        What is left after purification, aligned.
    points : int
        Most points in a panel; the sources share them by their size.
    random_state : int
        Seed of the sample.

    Raises
    ------
    ValueError
        If `before` holds no rows, or the widths differ.
    """
    generator = np.random.default_rng(random_state)
    samples = [_sample(side, points, generator) for side in (before, after)]
    widths = {rows.shape[1] for side in samples for rows in side.values()}
    if len(widths) != 1:
        raise ValueError(f"embeddings must share one dimension; got {sorted(widths) or 'no rows'}")
    if not samples[0]:
        raise ValueError("before must hold rows to project; got none")
    raw = np.concatenate(list(samples[0].values()))
    centre = raw.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(raw - centre, rowvar=False).reshape(len(centre), -1))
    axes = vectors[:, ::-1][:, :2]
    # The sign of a component is arbitrary; a fixed one keeps the page the same on every machine.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])] < 0, -1, 1)
    flat = [{name: (rows - centre) @ axes for name, rows in side.items()} for side in samples]
    total = float(values.clip(0).sum())
    return Projection(
        before=flat[0],
        after=flat[1],
        explained=float(values[::-1][:2].clip(0).sum() / total) if total else 0.0,
        total_before=sum(map(len, before.values())),
        total_after=sum(map(len, after.values())),
    )


def _sample(
    side: Mapping[str, Rows], points: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    total = sum(map(len, side.values()))
    result = {}
    for name, rows in side.items():
        size = len(rows)
        if not size:
            continue
        chosen = np.arange(size)
        if total > points:
            share = max(1, round(points * size / total))
            chosen = np.sort(generator.choice(size, min(share, size), replace=False))
        result[name] = np.asarray(rows[chosen], dtype=np.float64)
    return result
