"""What the things of a scene stand on: eight simple grounds below a horizon."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64
# Behind, and below the horizon: hue, saturation and value on 0..1.
PAINTS = {
    "grass": ((0.55, 0.25, 0.98), (0.30, 0.55, 0.72)),
    "water": ((0.54, 0.10, 0.98), (0.56, 0.62, 0.86)),
    "table": ((0.12, 0.12, 0.97), (0.07, 0.45, 0.70)),
    "night": ((0.66, 0.62, 0.28), (0.70, 0.50, 0.16)),
    "road": ((0.58, 0.08, 0.90), (0.60, 0.05, 0.50)),
    "snow": ((0.58, 0.28, 0.92), (0.58, 0.03, 0.99)),
    "sand": ((0.50, 0.22, 0.98), (0.12, 0.38, 0.94)),
    "room": ((0.92, 0.12, 0.95), (0.00, 0.45, 0.62)),
}
HORIZONS = {"night": 54, "water": 16, "road": 22, "snow": 22, "sand": 20}
HORIZON = 24


def paint(
    hsv: tuple[float, float, float], rng: np.random.Generator, lighter: float = 0.0
) -> tuple[int, int, int]:
    """Give an RGB colour near one of hue, saturation and value."""
    hue = hsv[0] + rng.normal(0, 0.008)
    saturation = np.clip(hsv[1] * np.exp(rng.normal(0, 0.10)), 0, 1)
    value = np.clip(hsv[2] * (1 + lighter) * np.exp(rng.normal(0, 0.03)), 0, 1)
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, float(saturation), float(value))
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_ground(ground: str, rng: np.random.Generator, side: int = SIDE) -> Image.Image:
    """Draw one ground, its colours and marks a little different each time.

    Raises
    ------
    ValueError
        When the ground is none of `PAINTS`.
    """
    if ground not in PAINTS:
        raise ValueError(f"ground must be one of {', '.join(PAINTS)}; got {ground!r}")
    behind, below = PAINTS[ground]
    picture = Image.new("RGB", (SIDE, SIDE), paint(behind, rng))
    pen = ImageDraw.Draw(picture)
    horizon = HORIZONS.get(ground, HORIZON) + int(rng.integers(-2, 3))
    floor = paint(below, rng)
    pen.rectangle((0, horizon, SIDE, SIDE), fill=floor)
    dark, light = paint(below, rng, -0.18), paint(below, rng, 0.14)
    spots = [
        (int(x), int(y))
        for x, y in zip(rng.integers(0, SIDE, 12), rng.integers(horizon + 2, SIDE, 12), strict=True)
    ]
    if ground == "grass":
        for x, y in spots:
            pen.line((x, y, x - 1, y - 3), fill=dark)
            pen.line((x, y, x + 1, y - 3), fill=dark)
    elif ground == "water":
        for x, y in spots:
            pen.arc((x - 3, y - 1, x + 1, y + 2), 180, 360, fill=light)
            pen.arc((x + 1, y - 1, x + 5, y + 2), 180, 360, fill=light)
    elif ground == "table":
        for y in range(horizon + 9, SIDE, 10):
            pen.line((0, y, SIDE, y), fill=dark)
        pen.line((0, horizon, SIDE, horizon), fill=dark, width=2)
    elif ground == "night":
        for x, y in zip(rng.integers(0, SIDE, 16), rng.integers(0, horizon, 16), strict=True):
            pen.point((int(x), int(y)), fill=(235, 235, 200))
    elif ground == "road":
        for x in range(int(rng.integers(-8, 0)), SIDE, 16):
            pen.rectangle((x, 42, x + 8, 43), fill=(240, 240, 235))
        pen.rectangle((0, horizon, SIDE, horizon + 2), fill=dark)
    elif ground == "snow":
        for x, y in zip(rng.integers(0, SIDE, 14), rng.integers(0, horizon, 14), strict=True):
            pen.point((int(x), int(y)), fill=(255, 255, 255))
        for x, y in spots[:5]:
            pen.line((x - 3, y, x + 3, y), fill=dark)
    elif ground == "sand":
        for x, y in spots:
            pen.point((x, y), fill=dark)
        pen.arc((-14, horizon - 5, 34, horizon + 12), 200, 340, fill=floor, width=4)
    else:
        wall = paint(behind, rng, -0.08)
        for x in range(int(rng.integers(0, 8)), SIDE, 8):
            pen.line((x, 0, x, horizon), fill=wall)
        pen.rectangle((0, horizon, SIDE, horizon + 1), fill=(250, 245, 240))
        pen.ellipse((6, 40, 58, 60), fill=light)
    return picture if side == SIDE else picture.resize((side, side), Image.Resampling.BICUBIC)
