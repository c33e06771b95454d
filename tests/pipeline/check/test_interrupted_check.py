"""A check that is killed goes on where it was, and what it leaves is what an undisturbed one leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds
from tests.calls import calls
from tests.killing import Point, Runs
from tests.pipeline.check.checked import checked, world

pytestmark = pytest.mark.slow

MOMENTS = {
    "amid a part of the check": Point("rows written", r"check/text/completed/.*part-000003"),
    "between a part and its manifest": Point("open", r"check/image/ledger/\.shard-000002\.json"),
    "before the figures": Point("os.rename", r"check/text/figures\.json$"),
    "while rows are told their confidence": Point(
        "open", r"runs/quick/ledger/\.shard-000027\.json"
    ),
}


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with Runs() as server:
        yield server


def left(path: Path) -> dict[str, Any]:
    """What stands of the check and of the confidence of rows, but for which run it was."""
    job = Job(load_config(path))
    rows = quick_worlds.completed(job)
    pairs = {half: checked(path, half) for half in ("text", "image")}
    return {
        "figures": job.check.figures(),
        "pairs": {
            half: {
                row_id: repr((pair["text"], pair["image"], pair["check"]))
                for row_id, pair in own.items()
            }
            for half, own in pairs.items()
        },
        "confidence": {
            row_id: (row["completion"]["confidence"], row["completion"]["gain_probability"])
            for row_id, row in rows.items()
            if row["completion"]
        },
    }


@pytest.fixture(scope="module")
def undisturbed(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What a whole run leaves, and how often its generators are asked."""
    path = world(tmp_path_factory.mktemp("undisturbed"))
    assert runs.run(path) == 0
    return left(path), len(calls(path.parent))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_check_goes_on_where_it_was(
    runs: Runs, undisturbed: tuple[dict[str, Any], int], tmp_path: Path, moment: str
) -> None:
    expected, asked = undisturbed
    path = world(tmp_path)
    assert runs.run(path, MOMENTS[moment]) < 0, "it was not killed"
    assert runs.run(path) == 0
    assert left(path) == expected
    # What was under way is asked for again, a few blocks of eight; nothing that stood.
    assert len(calls(tmp_path)) <= asked + 3 * 8
    before = len(calls(tmp_path))
    assert runs.run(path) == 0 and len(calls(tmp_path)) == before
