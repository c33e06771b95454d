"""Small datasets of the rows that a test gives, and how to open and read them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.dataset.dataset import Dataset, DatasetSettings


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), "red").save(buffer, "PNG")
    return buffer.getvalue()


PNG = _png()


def open_dataset(path: Path, **settings) -> Dataset:
    return Dataset.open(DatasetSettings(path=str(path), **settings), Path("/"))


def read(dataset: Dataset) -> list[dict]:
    return [r for f in dataset.files for b in dataset.batches(f) for r in b.to_pylist()]


def write_parquet(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
