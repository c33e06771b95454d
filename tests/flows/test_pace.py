"""Pace and time left: of the work itself, from its beginning, whoever does it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows import pace as module
from flows.artifacts import RowsProgress
from flows.pace import Pace, duration
from flows.progress import RunView
from pipeline.ledger.comparison import PASSING
from tests import quick_worlds


class Clock:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_the_clock_starts_with_the_work_and_not_with_its_first_report(clock: Clock) -> None:
    pace = Pace()
    pace.begin()
    clock.now += 60
    pace.add(30)
    assert pace.told(120) == "2.0 s each, 4:00 min left"


def test_time_left_runs_down_and_grows_where_what_is_due_does_not_come(clock: Clock) -> None:
    pace = Pace()
    pace.begin()
    clock.now += 60
    pace.add(30)
    clock.now += 60
    assert pace.told(120) == "2.0 s each, 3:00 min left"
    clock.now += 120
    assert pace.told(120) == "4.0 s each, 5:00 min left"


def test_loading_models_is_no_work(clock: Clock) -> None:
    lost = 0.0
    pace = Pace(lambda: lost)
    pace.begin()
    clock.now += 400
    lost = 390.0
    assert pace.told(100) == "10 s"
    pace.add(10)
    assert pace.told(90) == "1.0 a second, 1:30 min left"


def test_workers_share_what_is_left(clock: Clock) -> None:
    pace = Pace()
    pace.begin()
    clock.now += 50
    for worker in ("a", "b", "c", "a", "b"):
        pace.add_worker(10, 25.0, worker)
    assert pace.told(90) == "2.5 s each on 3 workers, 1:15 min left"


def test_a_step_that_goes_on_from_what_stood_has_the_pace_of_what_it_does(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunView() as view:
        view.step("embed", 9000, 10_000)
        clock.now += 50
        view.step("embed", 10_000, 10_000)
    assert capsys.readouterr().err == "embed: 10,000 of 10,000 (20.0 a second, 50 s)\n"


def test_passed_rows_have_no_part_in_the_pace_and_a_shard_done_twice_counts_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[tuple[float, str]] = []
    monkeypatch.setattr("flows.artifacts.create_progress_artifact", lambda *_, **__: "id")
    monkeypatch.setattr(
        "flows.artifacts.update_progress_artifact",
        lambda _, share, description: shown.append((share, description)),
    )
    monkeypatch.setattr("flows.artifacts.UPDATE_SECONDS", 0.0)
    with RunView() as view:
        progress = RowsProgress("x", {PASSING: 1000, "text": 20, "image": 10}, view)
        progress.begin("shard-1", PASSING)
        clock.now += 2
        progress.rows_done("shard-1", PASSING, {"observed": 1000})
        progress.end("shard-1", PASSING, {"observed": 1000})
        for _ in range(2):  # after an I/O error the shard is tried again
            progress.begin("shard-2", "text")
            clock.now += 50
            progress.answered("text", 5)
            progress.rows_done("shard-2", "text", {"completed": 4, "failed": 1})
        assert shown[-1] == (
            100 * 5 / 30,
            "pass rows through: 1000 of 1000 (500.0 a second, 1:42 min; 1000 observed)"
            " · complete texts: 5 of 20 (10.0 s each, 2:30 min left; 4 completed, 1 failed)"
            " · complete images: 0 of 10",
        )
        progress.end("shard-2", "text", {"completed": 19, "failed": 1})
    assert capsys.readouterr().err.splitlines() == [
        "pass rows through: 1,000 of 1,000 (500.0 a second, 2 s; 1000 observed)",
        "complete texts: 20 of 20 (10.0 s each, 1:40 min; 19 completed, 1 failed)",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.7, "1:00 min"), (3599, "59:59 min"), (86399, "23:59 h")]
)
def test_durations_are_said_as_a_person_would(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.slow
def test_a_run_tells_the_time_that_is_left_within_a_third(tmp_path: Path) -> None:
    """Hundreds of rows pass, then sixteen take their time: what is said is what it takes."""
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(300, 16, 0))
    captioner = {"kind": "tests.quick_parts:QuickCaptioner", "row_seconds": 0.8}
    config = quick_worlds.config(
        tmp_path, captioner=captioner, run={"shard_size": 64, "block_size": 2}
    )
    script = (
        "import sys, flows.progress as progress; from flows.cli import main;"
        "progress.LINE_SECONDS = 0.5;"
        f"sys.argv = ['rag4dmc', 'run', {str(config)!r}, '--json']; main()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout)["outcomes"]["completed"] == 16
    told = re.findall(
        r"complete texts: (\d+) of 16 \((?:[\d.]+ s each|[\d.]+ a second), (\d+) s left",
        answer.stderr,
    )
    assert len(told) >= 3
    for done, left in told:
        # A block before those that are counted is answered already.
        assert (16 - int(done) - 4) * 0.8 * 2 / 3 <= int(left) <= (16 - int(done)) * 0.8 * 4 / 3
    assert "pass rows through: 300 of 300" in answer.stderr
