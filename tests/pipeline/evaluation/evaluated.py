"""Datasets of coloured squares that are evaluated, with an external base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import quick_worlds


def world(folder: Path, changes: Mapping[str, Any] | None = None, **evaluation: Any) -> Path:
    """60 pairs and 60 external ones, of which two are copies of the dataset's."""
    pairs = quick_worlds.rows(60, 0, 0)
    quick_worlds.write(folder / "data" / "a.parquet", pairs)
    others = [quick_worlds.row(number) | {"id": f"x{number}"} for number in range(100, 158)]
    copies = [dict(pairs[number]) | {"id": f"copy {number}"} for number in range(2)]
    quick_worlds.write(folder / "others" / "a.parquet", others + copies)
    settings = {"rates": [0.5], "downstream": None, "duplicate_cosine": 0.999999} | evaluation
    return quick_worlds.config(
        folder,
        external=[{"name": "others", "path": "others", "licence": "CC0"}],
        evaluation=settings,
        **(changes or {}),
    )
