"""Completed datasets of every outcome and every kind of picture, for the tests of exports."""

from __future__ import annotations

import io
import math
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from PIL import Image

from pipeline.dataset.schema import completed_schema

COUNT = 250
# Numbers of the rows that an export keeps.
USABLE = [n for n in range(COUNT) if n % 6 < 4]
EXTRA = pa.schema([("label", pa.int64()), ("when", pa.timestamp("us")), ("weight", pa.float64())])


def image_bytes(number: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", (8, 6), (number % 256, 40, 90))
    image.save(buffer, ("PNG", "JPEG", "WEBP", "BMP")[number % 4])
    return buffer.getvalue()


def completed_row(number: int, text_is_list: bool = False) -> dict:
    kind = ("observed", "observed", "text", "image", "rejected", "failed")[number % 6]
    lost = kind in ("rejected", "failed")
    missing = kind if kind in ("text", "image") else "text" if lost else None
    status = "completed" if kind in ("text", "image") else kind
    text = f'caption {number}: a "red" hat\ton <image> é'
    completion = None
    if missing:
        completion = {
            "generator": "blip2" if missing == "text" else "sdxl",
            "model": "tiny|<b>model</b>",
            "revision": "0123abcd",
            "seed": 2**62 + number,
            "examples": [{"id": f"web/{number}", "source": "web", "licence": "CC-BY-4.0"}],
            "candidates": [{"text": "x", "score": 0.1, "valid": True}],
            "score": None if lost else number / 1000,
            "kb_version": "v1",
            "run_id": "r1",
        }
    return {
        "id": f"row/{number:04d}",
        "image": {"bytes": image_bytes(number), "path": "photo.png"},
        "text": None if lost else [text, f"second {number}"] if text_is_list else text,
        "label": number,
        "when": datetime(2026, 1, 1, 12),
        "weight": math.nan if number % 2 else 0.5,
        "status": status,
        "missing": missing,
        "reason": "no text in the row" if missing else None,
        "completion": completion,
    }


def write_completed(folder: Path, text_is_list: bool = False) -> ds.Dataset:
    schema = completed_schema(text_is_list, EXTRA)
    folder.mkdir()
    for part in range(2):
        rows = [
            completed_row(n, text_is_list)
            for n in range(part * COUNT // 2, (part + 1) * COUNT // 2)
        ]
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, folder / f"part-{part:06d}.parquet", row_group_size=100)
    files = sorted(str(path) for path in folder.glob("*.parquet"))
    return ds.dataset(files, schema=schema, format="parquet")


def assert_same_picture(image: Image.Image, number: int) -> None:
    image = image.convert("RGB")
    assert image.size == (8, 6)
    pairs = zip(image.getpixel((4, 3)), (number % 256, 40, 90), strict=True)
    assert all(abs(a - b) <= 12 for a, b in pairs)
