"""A generator's server that goes away: the run ends, and the one after it does what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from generators.service import ServiceRefused
from pipeline.config import load_config
from pipeline.job import Job
from tests import quick_worlds
from tests.generators.server import Server


def test_rows_of_an_outage_stay_pending_and_what_was_done_stands(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(12, 16, 0))
    with Server() as server:
        captioner = server.settings(kind="openai", retries=0, concurrency=1)
        config = quick_worlds.config(tmp_path, captioner=captioner)
        # The first of two shards: eight rows, two candidates each.
        server.script.extend([None] * 16 + [503] * 100)
        with pytest.raises(ServiceRefused, match="seems to be down"):
            quick_worlds.run(config)
        plan = Job(load_config(config)).plan()
        assert (plan.done, plan.pending["text"]) == (12 + 8, 8)
        server.script.clear()
        asked = len(server.seen)
        _, summary = quick_worlds.run(config)
        assert len(server.seen) == asked + 16
    assert summary["outcomes"] == {"observed": 12, "completed": 16, "rejected": 0, "failed": 0}
