"""A world of squares whose pairs are checked: of some there are twins that share a half."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pipeline.config.config import load_config
from pipeline.job import Job
from pipeline.ledger.ledger import Ledger
from tests import quick_worlds
from tests.quick_parts import QuickEncoder

PAIRS = 60
TWINS = 30


class NoisyEncoder(QuickEncoder):
    """Pictures tell their colour, and as much that is theirs alone."""

    def _image(self, image: Image.Image) -> np.ndarray:
        own = np.random.default_rng(zlib.crc32(image.tobytes())).normal(size=12)
        return super()._image(image) + 0.2 * own


def data() -> list[dict[str, Any]]:
    """Pairs and rows that lack a half; every other pair has a twin of its picture or of its text."""
    rows = quick_worlds.rows(180, 20, 14)
    whole = [row for row in rows if row["image"] and row["text"]]
    for number, row in enumerate(whole[: 2 * TWINS : 2]):
        twin = quick_worlds.row(500 + number, id=f"twin of {row['id']}")
        half = "image" if number % 2 else "text"
        rows.append(twin | {half: row[half]})
    return rows


def config(folder: Path, check: Any = PAIRS, **changes: Any) -> Path:
    """A config whose run checks so many pairs a half."""
    run = {"shard_size": 8, "block_size": 8, "check": check} | changes.pop("run", {})
    encoder = {"kind": "tests.pipeline.check.checked:NoisyEncoder"}
    knowledge = {
        "mapping": {"method": "ridge"},
        "device": "cpu",
        "retrieval": {"k": 10, "alpha": 0.5, "examples": 2},
    }
    defaults = {"run": run, "encoder": encoder, "knowledge_base": knowledge}
    return quick_worlds.config(folder, **(defaults | changes))


def world(folder: Path, **changes: Any) -> Path:
    """Data and config in a folder; the config's path."""
    quick_worlds.write(folder / "data" / "a.parquet", data())
    return config(folder, **changes)


def checked(path: Path, half: str) -> dict[str, dict[str, Any]]:
    """The checked pairs of a half, by id."""
    ledger = Ledger(Job(load_config(path)).folder / "check" / half).load()
    found: dict[str, dict[str, Any]] = {}
    for manifest in ledger.newest_first():
        for row in pq.read_table(ledger.parts / manifest.part).to_pylist():
            found.setdefault(row["id"], row)
    return found
