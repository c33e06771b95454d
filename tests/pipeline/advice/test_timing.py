"""`inspect --time` asks a generator what a run asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.advice.timing import measure
from pipeline.config.config import load_config
from pipeline.job import Job
from pipeline.storage.errors import ConfigError
from tests import quick_worlds
from tests.generators.server import Seen, Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def world(folder: Path, captioner: dict[str, Any]) -> Path:
    quick_worlds.write(folder / "data" / "a.parquet", quick_worlds.rows(12, 3, 0))
    return quick_worlds.config(
        folder,
        captioner=captioner,
        generation={"n": 2, "ungrounded": {"text": 0.5}},
        knowledge_base={
            "mapping": {"method": "start"},
            "device": "cpu",
            "retrieval": {"k": 5, "alpha": 0.5, "examples": 2},
        },
    )


def timed(path: Path) -> dict[str, Any]:
    job = Job(load_config(path))
    job.home.refresh(job.run_id)
    return measure(job, {"text": 3, "image": 0}, {}, {"text": False, "image": False})


def _kind(part: dict[str, Any]) -> str:
    """Of a picture what it is encoded as: a dataset's own file goes out as it is."""
    return part["image_url"]["url"].split(";")[0] if part["type"] == "image_url" else part["type"]


def shape(seen: Seen) -> tuple[Any, ...]:
    """What a request takes: its fields, its turns, and the pictures in them."""
    fields = seen.fields
    turns = tuple(
        (one["role"], tuple(_kind(part) for part in one["content"]))
        if isinstance(one["content"], list)
        else (one["role"], "text")
        for one in fields["messages"]
    )
    return tuple(sorted(fields)), turns


def test_the_requests_that_are_timed_are_those_of_a_run(tmp_path: Path, server: Server) -> None:
    path = world(tmp_path, server.settings(kind="openai", retries=0))
    time = timed(path)
    asked = [shape(seen) for seen in server.seen]
    server.seen.clear()
    quick_worlds.run(path)
    run = [shape(seen) for seen in server.seen]
    assert set(asked) == set(run)
    assert {len(turns) for _, turns in run} == {1, 5}
    for kind in set(run):
        assert asked.count(kind) / len(asked) == run.count(kind) / len(run)
    least, most = time["seconds_a_row"]["text"]
    assert 0 < least <= most


def test_a_generator_that_only_errs_has_no_time(tmp_path: Path) -> None:
    path = world(tmp_path, {"kind": "tests.quick_parts:QuickCaptioner", "fails": ""})
    config = path.read_text(encoding="utf-8").replace("fails: ''", "fails: '0'")
    path.write_text(config, encoding="utf-8")
    rows = [dict(row, id=f"{row['id']}0") for row in quick_worlds.rows(12, 3, 0)]
    quick_worlds.write(tmp_path / "data" / "a.parquet", rows)
    with pytest.raises(ConfigError, match="captioner: gave no candidate to time: the server said"):
        timed(path)
