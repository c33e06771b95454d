"""What becomes of a row whose candidates do not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests import quick_worlds


def completed(tmp_path: Path, blank_attempts: int = 0, **changes: Any) -> dict[str, Any]:
    """The one row without a text after a run whose captioner gives blanks for so many attempts."""
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(40, 1, 0))
    kind = "tests.quick_parts:QuickCaptioner"
    captioner = {"kind": kind, "same": True, "blank_attempts": blank_attempts}
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path, captioner=captioner, **changes))
    return next(row for row in quick_worlds.completed(job).values() if row["missing"])


def test_when_every_candidate_is_invalid_there_is_a_second_attempt(tmp_path: Path) -> None:
    alike = {"n": 2, "ungrounded": {"text": 0}}
    row = completed(tmp_path, blank_attempts=1, generation=alike)
    made = row["completion"]
    assert row["status"] == "completed" and row["text"].startswith("a plain ")
    assert (made["attempt"], made["chosen"]) == (2, 2)
    reasons = [(c["attempt"], c["valid"], c["reason"]) for c in made["candidates"]]
    assert reasons == [
        (1, False, "empty"),
        (1, False, "empty"),
        (2, True, None),
        (2, False, "duplicate"),
    ]


def test_without_a_valid_candidate_the_row_is_rejected_with_the_reasons(tmp_path: Path) -> None:
    row = completed(tmp_path, blank_attempts=2)
    assert (row["status"], row["text"]) == ("rejected", None)
    assert row["image"]["bytes"]
    assert "attempt 1: " in row["reason"] and "attempt 2: " in row["reason"]
    assert "empty" in row["reason"]
    assert len(row["completion"]["candidates"]) == 4


def test_a_row_below_the_floor_is_rejected(tmp_path: Path) -> None:
    row = completed(tmp_path, selection={"caption": {"floor_score": 9.0}})
    assert row["status"] == "rejected"
    assert "below floor" in row["reason"]


def test_without_grounding_a_row_has_no_examples(tmp_path: Path) -> None:
    row = completed(tmp_path, generation={"n": 2, "grounded": False})
    assert row["status"] == "completed"
    assert row["completion"]["examples"] == []


def test_some_candidates_may_be_drawn_without_the_example(tmp_path: Path) -> None:
    def candidates(name: str, **generation: Any) -> list[dict[str, Any]]:
        row = completed(tmp_path / name, generation={"n": 2, **generation})
        return list(row["completion"]["candidates"])

    with_it, without, mixed = (
        candidates("with", ungrounded={"text": 0}),
        candidates("without", grounded=False),
        candidates("mixed", ungrounded={"text": 0.5}),
    )
    assert [c["text"] for c in mixed] == [with_it[0]["text"], without[1]["text"]]
    assert with_it[1]["text"] != without[1]["text"]
    assert [len(c["examples"]) for c in mixed] == [1, 0]
    assert [c["seed"] for c in mixed] == [c["seed"] for c in with_it]


def test_row_groups_stay_small_where_images_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = quick_worlds.rows(40, 1, 0)
    size = len(rows[0]["image"]["bytes"])
    monkeypatch.setattr("pipeline.dataset.schema.ROW_GROUP_BYTES", 5 * size)
    quick_worlds.write(tmp_path / "data" / "a.parquet", rows)
    changes = {"run": {"shard_size": 100, "block_size": 32}}
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path, **changes))
    files = [pq.ParquetFile(path).metadata for path in job.ledger.files()]
    groups = [file.row_group(n).num_rows for file in files for n in range(file.num_row_groups)]
    assert sum(groups) == 41
    assert max(groups) <= 5
