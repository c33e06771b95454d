"""What an evaluation completed is measured by what its scenes hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.scenes.completed import summary
from examples.scenes.measure import own_right

PAIRS = [
    {"id": "log-1", "text": "galley: two pippins port", "ground": "table", "things": "red apple"},
    {"id": "log-2", "text": "galley: pippin ahead", "ground": "table", "things": "red apple"},
    {"id": "log-3", "text": "ashore: cow port", "ground": "grass", "things": "cow, tree"},
    {"id": "flat-1", "text": "stock picture, cow; tabletop", "ground": "table", "things": "cow"},
]


def row(id: str, missing: str, text: str, *examples: tuple[str, str]) -> dict[str, Any]:
    """A completed row with the pairs that it was shown."""
    shown = [{"id": found, "source": source} for found, source in examples]
    completion = {"examples": shown}
    return {
        "id": id,
        "text": text,
        "missing": missing,
        "status": "completed",
        "completion": completion,
    }


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """An evaluation's output of two draws, and the world's files beside it."""
    pq.write_table(pa.Table.from_pylist(PAIRS[:3]), tmp_path / "target.parquet")
    pq.write_table(pa.Table.from_pylist(PAIRS[3:]), tmp_path / "external.parquet")
    own, other = ("log-2", "internal"), ("flat-1", "fluent-flat")
    runs = {
        "rows-0.7-a-direct": [row("log-1", "text", "two red apples")],
        "rows-0.7-b-direct": [row("log-1", "text", "two red apples")],
        "rows-0.7-a-rag4dmc": [
            row("log-1", "text", "galley: two pippins port", own),
            row("log-3", "image", "ashore: cow port", own, other),
        ],
        "rows-0.7-b-rag4dmc": [row("log-1", "text", "galley: cow", other)],
    }
    for name, rows in runs.items():
        folder = tmp_path / "evaluation" / "runs" / name / "completed"
        folder.mkdir(parents=True)
        left_out = {**row("log-2", "text", ""), "status": "rejected"}
        pq.write_table(pa.Table.from_pylist([*rows, left_out]), folder / "part-000001.parquet")
    return tmp_path


def test_words_and_examples_are_told_by_variant_over_draws(evaluated: Path) -> None:
    told = summary(evaluated, evaluated)
    truth = [PAIRS[0]["text"]]
    half_right = own_right(["galley: cow"], truth)
    assert 0 < half_right < 1
    assert told["direct"] == {"own words right": {"mean": 0, "half": 0}}
    ours = told["rag4dmc"]
    assert ours["own words right"]["mean"] == pytest.approx((1 + half_right) / 2, abs=1e-3)
    assert told["rag4dmc - direct"]["own words right"] == ours["own words right"]
    assert ours["text: first example shares a thing"]["mean"] == 0.5
    assert ours["text: first example shares a thing and the ground"]["mean"] == 0.5
    assert ours["text: first example is the dataset's own"]["mean"] == 0.5
    # A cow, of another ground and the other set; in one of the draws.
    assert ours["image: first example shares a thing"]["mean"] == 0
    assert ours["image: an example shares a thing"]["mean"] == 1
    assert ours["image: an example shares a thing and the ground"]["mean"] == 0
    assert ours["image: first example is the dataset's own"]["mean"] == 1
