"""A chart of several lines with intervals on common axes, as plain SVG geometry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.check.intervals import Interval

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 12.0, 26.0
# Colours of the page; of more lines the further ones are dashed.
COLOURS = 8
# Lines are set apart by so much, so that their intervals do not hide each other.
APART = 3.0
# Marks of another source stand beside the lines' points, not among them.
MARKED_APART = 28.0


@dataclass(frozen=True)
class Point:
    """A measured point: its place, the ends of its interval, and both as text."""

    x: float
    y: float
    low: float
    high: float
    title: str


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes
    ----------
    name : str
    colour : int
    dashed : bool
    path : str
    points : tuple of Point
        Empty for a level that holds everywhere.
    marks : tuple of Point
        Of another source, for comparison.
    """

    name: str
    colour: int
    dashed: bool
    path: str
    points: tuple[Point, ...]
    marks: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Lines over one horizontal axis, all on one vertical scale.

    Attributes
    ----------
    label, note : str
    lines : tuple of Line
    columns, rows : tuple of (float, str)
        Ticks of the two axes, each with its text.
    """

    label: str
    note: str
    lines: tuple[Line, ...]
    columns: tuple[tuple[float, str], ...]
    rows: tuple[tuple[float, str], ...]


def draw_chart(
    label: str,
    places: Sequence[tuple[float, str]],
    lines: Mapping[str, Sequence[Interval | None]],
    levels: Mapping[str, Interval] | None = None,
    marks: Mapping[str, Sequence[float | None]] | None = None,
    note: str = "",
) -> Chart | None:
    """A chart; None with fewer than two places, or no line with two points.

    Parameters
    ----------
    label : str
    places : value and name of each place on the horizontal axis
    lines : by name, the figure at each place
    levels : by name, figures that do not depend on the place
    marks : by a line's name, values of another source at each place
    note : str
    """
    lines = {name: held for name, held in lines.items() if sum(map(bool, held)) > 1}
    if len(places) < 2 or not lines:
        return None
    levels, marks = levels or {}, {name: m for name, m in (marks or {}).items() if name in lines}
    shown = [one for held in lines.values() for one in held if one is not None]
    shown += levels.values()
    ends = [value for one in shown for value in (one.low, one.high)]
    ends += [value for held in marks.values() for value in held if value is not None]
    ticks = _ticks(min(ends), max(ends))
    low, high = ticks[0], ticks[-1]
    first, last = places[0][0], places[-1][0]
    inset = 36.0

    def across(value: float, shift: float = 0.0) -> float:
        room = WIDTH - LEFT - RIGHT - 2 * inset
        return round(LEFT + inset + (value - first) / (last - first) * room + shift, 1)

    def down(value: float) -> float:
        return round(TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    def point(x: float, one: Interval, title: str) -> Point:
        return Point(x, down(one.mean), down(one.low), down(one.high), title)

    drawn = []
    for number, (name, one) in enumerate(levels.items()):
        path = f"M{LEFT} {down(one.mean)}H{WIDTH - RIGHT}"
        drawn.append(Line(f"{name}: {one.mean:.3f}", number % COLOURS, True, path, ()))
    for number, (name, held) in enumerate(lines.items()):
        shift = (number - (len(lines) - 1) / 2) * APART
        points = tuple(
            point(across(value, shift), one, f"{name}, {at}: {one}")
            for (value, at), one in zip(places, held, strict=True)
            if one is not None
        )
        path = "M" + "L".join(f"{one.x} {one.y}" for one in points)
        beside = tuple(
            point(across(value, MARKED_APART), Interval(mark, 0.0), f"{name}, {at}: {mark:.3f}")
            for (value, at), mark in zip(places, marks.get(name, ()), strict=False)
            if mark is not None
        )
        dashed = not levels and number >= COLOURS
        colour = (len(levels) + number) % COLOURS
        drawn.append(Line(name, colour, dashed, path, points, beside))
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    return Chart(
        label,
        note,
        tuple(drawn),
        tuple((across(value), name) for value, name in places),
        tuple((down(value), f"{value:.{digits}f}") for value in ticks),
    )


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values from at most `low` to at least `high`."""
    span = max(high - low, 1e-3)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * m for m in (1, 2, 5, 10, 20) if span / (power * m) <= most - 1)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(start, max(end, start + 1) + 1)]
