"""Workers share the pairs of a check, and tell rows their confidence by what all of them found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.run import run_flow
from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds
from tests.calls import LOG, calls
from tests.pipeline.check.checked import PAIRS, checked, world

ROOT = Path(__file__).parents[2]


def left(path: Path) -> dict[str, Any]:
    """What stands of the check, and the confidence of rows."""
    job = Job(load_config(path))
    rows = quick_worlds.completed(job)
    made = {row_id: row["completion"] for row_id, row in rows.items() if row["completion"]}
    return {
        "figures": job.check.figures(),
        "confidence": {row_id: one["confidence"] for row_id, one in made.items()},
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = world(tmp_path_factory.mktemp("local"))
    quick_worlds.run(path)
    return left(path)


@pytest.mark.slow
@pytest.mark.parametrize("on_a_url", [False, True])
def test_workers_find_what_one_process_finds(
    server: None,
    expected: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_a_url: bool,
) -> None:
    pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(LOG, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    changes: dict[str, Any] = {"engine": {"kind": "dask", "workers": 2, "gpus": 0}}
    if on_a_url:
        changes["output"] = f"file://{tmp_path}/remote"
    path = world(tmp_path, **changes)
    summary = run_flow(str(path))
    assert left(path) == expected and summary["check"] == expected["figures"]
    asked = calls(tmp_path)
    pairs = {half: set(checked(path, half)) for half in ("text", "image")}
    by = {pid for pid, row_id in asked if row_id in pairs["text"] | pairs["image"]}
    assert len(by) == 2 and len(asked) == 2 * PAIRS + 34
    if on_a_url:
        there = {one.name for one in (tmp_path / "remote/check/text/completed").iterdir()}
        ours = (Job(load_config(path)).folder / "check/text/completed").glob("*.parquet")
        assert there == {one.name for one in ours}
    assert run_flow(str(path))["check"] == expected["figures"] and len(calls(tmp_path)) == len(
        asked
    )
