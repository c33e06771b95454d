"""Drawings of the report as plain SVG geometry: histograms, curves and point clouds.

Nothing here knows of HTML or colour; the template gives both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 320, 120
MARKED = 8


@dataclass(frozen=True)
class Histogram:
    """Shares of two samples over common bins.

    Attributes
    ----------
    label : str
        What is counted, in words.
    chosen, others : str
        SVG paths on a canvas of 320 × 120: the chosen candidates' and the other valid ones'.
    low, middle, high : str
        Ends and middle of the axis, as written.
    count, median : int, float
        Of the chosen.
    """

    label: str
    chosen: str
    others: str
    low: str
    middle: str
    high: str
    count: int
    median: float


def histogram(
    label: str, chosen: Sequence[float], others: Sequence[float], bins: int = 32
) -> Histogram | None:
    """Histogram of the chosen candidates' figures with the others' behind; None without any."""
    own = np.asarray(chosen, dtype=np.float64)
    rest = np.asarray(others, dtype=np.float64)
    own, rest = own[np.isfinite(own)], rest[np.isfinite(rest)]
    if not len(own):
        return None
    both = np.concatenate([own, rest])
    low, high = float(both.min()), float(both.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    counts = [np.histogram(sample, bins=bins, range=(low, high))[0] for sample in (own, rest)]
    shares = [count / max(count.sum(), 1) for count in counts]
    top = max(float(share.max()) for share in shares)
    step = WIDTH / bins
    bars = " ".join(
        f"M{position * step + 0.5:.1f} {HEIGHT}v{-share / top * (HEIGHT - 4):.1f}"
        f"h{step - 1:.1f}v{share / top * (HEIGHT - 4):.1f}z"
        for position, share in enumerate(shares[0])
        if share
    )
    outline = ""
    if len(rest):
        outline = f"M0 {HEIGHT}" + "".join(
            f"L{position * step:.1f} {HEIGHT - share / top * (HEIGHT - 4):.1f}h{step:.1f}"
            for position, share in enumerate(shares[1])
        )
    return Histogram(
        label,
        bars,
        outline,
        low=f"{low:.2f}",
        middle=f"{(low + high) / 2:.2f}",
        high=f"{high:.2f}",
        count=len(own),
        median=float(np.median(own)),
    )


@dataclass(frozen=True)
class Curve:
    """A line through a few measured points, on a canvas of 320 × 120."""

    label: str
    path: str
    dots: tuple[tuple[float, float, str], ...]
    ticks: tuple[tuple[float, str], ...]
    low: str
    high: str
    zero: float | None


def curve(label: str, names: Sequence[str], values: Sequence[float]) -> Curve | None:
    """Values over named steps, evenly spaced; None with fewer than two.

    Of many steps only a few have a dot and a name.
    """
    if len(values) < 2:
        return None
    margin, room = 18.0, HEIGHT - 20.0
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    xs = np.linspace(margin, WIDTH - margin, len(values))
    ys = [HEIGHT - 10 - (value - low) / span * room for value in values]
    zero = HEIGHT - 10 - (0 - low) / span * room if low < 0 < high else None
    points = list(zip(xs.tolist(), ys, strict=True))
    marked = sorted({round(n) for n in np.linspace(0, len(values) - 1, min(len(values), MARKED))})
    return Curve(
        label,
        "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points),
        tuple(
            (round(points[n][0], 1), round(points[n][1], 1), f"{names[n]}: {values[n]:.4g}")
            for n in marked
        ),
        tuple((round(points[n][0], 1), names[n]) for n in marked),
        f"{low:.4g}",
        f"{high:.4g}",
        zero,
    )


@dataclass(frozen=True)
class Reliability:
    """What was found of rows over what was expected of them, on a square canvas of 160.

    Attributes
    ----------
    line, diagonal : str
        SVG paths; the diagonal is where both are the same.
    dots : tuple of (x, y, title)
    low, high : str
        Ends of both axes, as written.
    """

    line: str
    diagonal: str
    dots: tuple[tuple[float, float, str], ...]
    low: str
    high: str


def reliability(curve: Sequence[Mapping[str, float]], side: float = 160) -> Reliability:
    """The calibration curve of bins with what was `expected`, what was `found`, and how many `rows`."""
    values = [one[name] for one in curve for name in ("expected", "found")]
    low, high = min(values), max(values)
    span, margin = (high - low) or 1.0, 8.0
    scale = (side - 2 * margin) / span
    points = [
        (margin + (one["expected"] - low) * scale, side - margin - (one["found"] - low) * scale)
        for one in curve
    ]
    titles = (
        f"expected {one['expected']:.3f}, found {one['found']:.3f}, {one['rows']:.0f} pairs"
        for one in curve
    )
    return Reliability(
        "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points),
        f"M{margin} {side - margin}L{side - margin} {margin}",
        tuple(
            (round(x, 1), round(y, 1), title) for (x, y), title in zip(points, titles, strict=True)
        ),
        f"{low:.2f}",
        f"{high:.2f}",
    )


@dataclass(frozen=True)
class Cloud:
    """Point clouds by source on a square canvas of 400."""

    label: str
    total: int
    shown: int
    paths: dict[str, str]


def clouds(
    panels: Mapping[str, tuple[int, Mapping[str, np.ndarray]]], side: float = 400
) -> list[Cloud]:
    """Panels of points [n, 2] by source, all on the same scale, each source one path of dots."""
    everything = [points for _, panel in panels.values() for points in panel.values()]
    if not everything:
        return []
    stacked = np.concatenate(everything)
    # A handful of far points must not press all others into a corner.
    low, high = np.percentile(stacked, [0.5, 99.5], axis=0)
    centre, span = (low + high) / 2, max(float((high - low).max()), 1e-9) * 1.08
    result = []
    for label, (total, panel) in panels.items():
        paths = {}
        for source, points in panel.items():
            x, y = (((points - centre) / span + 0.5) * side).clip(4, side - 4).T
            paths[source] = "".join(
                f"M{a:.0f} {side - b:.0f}h0" for a, b in zip(x.tolist(), y.tolist(), strict=True)
            )
        result.append(Cloud(label, total, sum(map(len, panel.values())), paths))
    return result
