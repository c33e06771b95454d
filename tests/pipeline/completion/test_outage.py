"""A generator's server that goes away: the run ends, and the one after it does what is left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from generators.service_errors import ServiceRefused
from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds
from tests.generators.server import Server


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Path, Server]]:
    """Sixteen texts to write in two shards of two blocks of four rows, two candidates each."""
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(12, 16, 0))
    with Server() as server:
        yield tmp_path, server


def config(world: tuple[Path, Server], **settings: Any) -> Path:
    folder, server = world
    captioner = server.settings(kind="openai", retries=0, concurrency=1) | settings
    return quick_worlds.config(folder, captioner=captioner)


@pytest.mark.parametrize(
    "blocks", [pytest.param(n, marks=[pytest.mark.slow] * (n in (0, 3))) for n in range(4)]
)
def test_rows_of_an_outage_stay_pending_and_what_was_done_stands(
    world: tuple[Path, Server], blocks: int
) -> None:
    path, server = config(world), world[1]
    server.script.extend([None] * 8 * blocks + [503] * 100)
    with pytest.raises(ServiceRefused, match="seems to be down"):
        quick_worlds.run(path)
    plan = Job(load_config(path)).plan()
    assert (plan.done, plan.pending["text"]) == (12 + 4 * blocks, 16 - 4 * blocks)
    server.script.clear()
    asked = len(server.seen)
    job, summary = quick_worlds.run(path)
    assert len(server.seen) == asked + 2 * plan.pending["text"]
    assert summary["outcomes"] == {"observed": 12, "completed": 16, "rejected": 0, "failed": 0}
    assert len(quick_worlds.completed(job)) == 28


def test_runs_with_a_budget_below_a_shard_get_on(world: tuple[Path, Server]) -> None:
    path = config(world, max_requests=12)
    for _ in range(3):
        with pytest.raises(ServiceRefused, match="budget of 12 requests"):
            quick_worlds.run(path)
    _, summary = quick_worlds.run(path)
    assert summary["outcomes"]["completed"] == 16


def test_what_was_done_before_an_outage_is_on_the_url(
    world: tuple[Path, Server], bucket: str
) -> None:
    path, server = config(world), world[1]
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values |= {"output": f"{bucket}/out", "working_folder": str(world[0] / "work")}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    server.script.extend([None] * 8 + [503] * 100)
    with pytest.raises(ServiceRefused, match="seems to be down"):
        quick_worlds.run(path)
    shutil.rmtree(world[0] / "work")
    job = Job(load_config(path))
    job.home.refresh(job.run_id)
    assert job.plan().pending["text"] == 12
