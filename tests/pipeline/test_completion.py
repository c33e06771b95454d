"""What becomes of a row whose candidates do not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.pipeline.test_job import run
from tests.worlds import emoji_rows, write_world


def completed(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    world = write_world(tmp_path, emoji_rows(40, 1, 0), external=[], **changes)
    job, _ = run(world)
    return next(row for row in job.completed().to_table().to_pylist() if row["missing"])


def late(attempt: int) -> dict[str, Any]:
    return {"kind": "tests.captioners:LateCaptioner", "good_attempt": attempt}


def test_when_every_candidate_is_invalid_there_is_a_second_attempt(tmp_path: Path) -> None:
    row = completed(tmp_path, captioner=late(2))
    made = row["completion"]
    assert (row["status"], row["text"]) == ("completed", "a small red apple")
    assert (made["attempt"], made["chosen"]) == (2, 2)
    reasons = [(c["attempt"], c["valid"], c["reason"]) for c in made["candidates"]]
    assert reasons == [
        (1, False, "empty"),
        (1, False, "empty"),
        (2, True, None),
        (2, False, "duplicate"),
    ]


def test_without_a_valid_candidate_the_row_is_rejected_with_the_reasons(tmp_path: Path) -> None:
    row = completed(tmp_path, captioner=late(3))
    assert (row["status"], row["text"]) == ("rejected", None)
    assert row["image"]["bytes"]
    assert "attempt 1: " in row["reason"] and "attempt 2: " in row["reason"]
    assert "empty" in row["reason"]
    assert len(row["completion"]["candidates"]) == 4


def test_a_row_below_the_floor_is_rejected(tmp_path: Path) -> None:
    row = completed(tmp_path, captioner=late(1), selection={"caption": {"floor_score": 9.0}})
    assert row["status"] == "rejected"
    assert "below floor" in row["reason"]


def test_without_grounding_a_row_has_no_examples(tmp_path: Path) -> None:
    row = completed(tmp_path, captioner=late(1), generation={"n": 2, "grounded": False})
    assert row["status"] == "completed"
    assert row["completion"]["examples"] == []
