"""The version of the model that a server names in its answers is recorded with what it made."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests import quick_worlds
from tests.generators.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def answer(content: str, **said: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}, "finish_reason": "stop"}], **said}


@pytest.mark.parametrize(
    ("said", "revision"),
    [
        ({"model": "tiny-2026-08-06", "system_fingerprint": "fp_1"}, "tiny-2026-08-06 fp_1"),
        # The name that was asked for says nothing more.
        ({"model": "tiny", "system_fingerprint": None}, None),
        ({"model": ["odd"]}, None),
        ({"model": "x" * 5000}, "x" * 200),
    ],
)
def test_it_stands_in_the_provenance_of_each_row(
    tmp_path: Path, server: Server, said: dict[str, Any], revision: str | None
) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(12, 3, 0))
    server.answer = answer("a red square with edge 3", **said)
    config = quick_worlds.config(
        tmp_path,
        captioner=server.settings(kind="openai"),
        generation={"n": 1, "attempts": 1, "ungrounded": {"text": 0}},
        run={"shard_size": 8, "block_size": 4, "remember": True},
        export=[{"format": "parquet"}],
    )
    job, _ = quick_worlds.run(config)
    made = [r["completion"] for r in quick_worlds.completed(job).values() if r["completion"]]
    assert len(made) == 3
    assert {(one["model"], one["revision"]) for one in made} == {("tiny", revision)}
    table = pq.read_table(job.folder / "exports" / "parquet" / "data")
    told = [one["revision"] for one in table["completion"].to_pylist() if one]
    assert set(told) == {revision}
    card = (job.folder / "exports" / "parquet" / "README.md").read_text()
    assert revision is None or revision[:100] in card.replace("\\", "")


def test_it_is_remembered_with_the_candidate_also_by_a_store_from_before(
    tmp_path: Path, server: Server
) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(12, 3, 0))
    server.answer = answer("a red square with edge 3", model="tiny-2")
    values = {
        "captioner": server.settings(kind="openai"),
        "generation": {"n": 1, "attempts": 1, "ungrounded": {"text": 0}},
        "run": {"shard_size": 8, "block_size": 4, "remember": True},
    }
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path, **values))
    asked = len(server.seen)
    server.answer = answer("never asked", model="tiny-3")
    other = {"selection": {"caption": {"lambda2": 0.5}}}
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path, **values, **other))
    made = [r["completion"] for r in quick_worlds.completed(job).values() if r["completion"]]
    assert {one["revision"] for one in made} == {"tiny-2"}
    assert len(server.seen) == asked
    (store,) = job.folder.rglob("*.sqlite*")
    with sqlite3.connect(store) as database:
        database.execute("ALTER TABLE drawn DROP COLUMN revision")
    other["selection"]["caption"]["lambda2"] = 0.25
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path, **values, **other))
    made = [r["completion"] for r in quick_worlds.completed(job).values() if r["completion"]]
    assert {one["revision"] for one in made} == {None}
    assert len(server.seen) == asked and json.dumps(made[0]["candidates"])
