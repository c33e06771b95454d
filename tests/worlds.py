"""Small real datasets for tests of whole runs: rows of the example world, its checkpoints, few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

SCENES = Path(__file__).parents[1] / "examples" / "scenes"
CHECKPOINTS = SCENES / "checkpoints"


def scene_rows(complete: int, without_text: int, without_image: int) -> list[dict[str, Any]]:
    """Rows of the example's incomplete dataset: so many of each kind, in its order.

    Their grounds are a column of neither half, which passes through.
    """
    wanted = {"complete": complete, "text": without_text, "image": without_image}
    facts = pq.read_table(SCENES / "target.parquet", columns=["id", "ground"]).to_pylist()
    grounds = {row["id"]: row["ground"] for row in facts}
    rows = []
    for row in pq.read_table(SCENES / "incomplete.parquet").to_pylist():
        kind = "text" if row["text"] is None else "image" if row["image"] is None else "complete"
        if wanted[kind]:
            wanted[kind] -= 1
            rows.append(row | {"ground": grounds[row["id"]]})
    assert not any(wanted.values())
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as Parquet with the example's columns, and their grounds."""
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("text", pa.string()),
            ("ground", pa.string()),
        ]
    )
    columns = [{name: row.get(name) for name in schema.names} for row in rows]
    pq.write_table(pa.Table.from_pylist(columns, schema=schema), path)


def settings(**changes: Any) -> dict[str, Any]:
    """A quick config of the example's checkpoints on `rows.parquet`; `changes` go on top."""
    values: dict[str, Any] = {
        "name": "small",
        "dataset": {"path": "rows.parquet"},
        "external": [
            {
                "name": "fluent-flat",
                "path": "external.parquet",
                "columns": {"extra": ["licence", "source"]},
            }
        ],
        "encoder": {"kind": "open_clip", "model": str(CHECKPOINTS / "encoder")},
        "captioner": {"kind": "blip2", "model": str(CHECKPOINTS / "captioner")},
        "image_generator": {"kind": "sdxl", "model": str(CHECKPOINTS / "sdxl"), "steps": 4},
        # The contest of mappings takes longer than all else; `knowledge_base={}` holds it.
        "knowledge_base": {"mapping": {"method": "ridge"}},
        "generation": {"n": 2},
        "run": {"shard_size": 8},
    }
    return values | changes


def write_world(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    """Data and config in a folder; the config's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "rows.parquet", rows)
    external = pq.read_table(SCENES / "external.parquet").slice(0, 110)
    pq.write_table(external, folder / "external.parquet")
    path = folder / "dmc.yaml"
    path.write_text(yaml.safe_dump(settings(**changes)), encoding="utf-8")
    return path
