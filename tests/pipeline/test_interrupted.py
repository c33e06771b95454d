"""A run that cannot go on says so in one line, and what was done stays: the next run goes on there."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset.dataset import DatasetError
from pipeline.export.settings import ExportSettings
from pipeline.job import Job
from pipeline.ledger.ledger import Ledger
from pipeline.report.presentation import export_run
from pipeline.report.run import report_run
from tests import quick_worlds
from tests.calls import LOG, calls

COUNTS = (12, 20, 12)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "w"
    quick_worlds.write(folder / "data" / "a.parquet", quick_worlds.rows(*COUNTS))
    monkeypatch.setenv(LOG, str(folder))
    return quick_worlds.config(folder)


@pytest.fixture
def disk(world: Path) -> Iterator[Path]:
    """The run's folder on a small disk of its own."""
    folder = world.parent / "runs"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs to mount a file system")
    yield folder
    # Lazily: the knowledge base is still mapped into memory.
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "undisturbed"
    quick_worlds.write(folder / "data" / "a.parquet", quick_worlds.rows(*COUNTS))
    return _rows(quick_worlds.run(quick_worlds.config(folder))[0])


def _rows(job: Job) -> dict[str, Any]:
    found = quick_worlds.completed(job)
    for each in found.values():
        (each["completion"] or {}).pop("run_id", None)
    return found


def _goes_on(world: Path, expected: dict[str, Any]) -> None:
    """The next run does what is left, and nothing that was finished."""
    held = Ledger(world.parent / "runs/quick").load().table()
    before = len(calls(world.parent))
    job, _ = quick_worlds.run(world)
    again = {row_id for _, row_id in calls(world.parent)[before:]}
    assert again
    assert not again & set(held["id"].to_pylist())
    assert _rows(job) == expected


def _in_one_line(error: BaseException) -> None:
    assert str(error) and "\n" not in str(error)


def test_a_full_disk(world: Path, disk: Path, expected: dict[str, Any]) -> None:
    quick_worlds.run(world, limit=4)
    space = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(space.f_bavail * space.f_frsize - 60_000))
    with pytest.raises(OSError, match=r"No space left on device: .*completed/part-") as raised:
        quick_worlds.run(world)
    assert raised.value.errno == errno.ENOSPC
    _in_one_line(raised.value)
    stand = len(Ledger(disk / "quick").load().manifests)
    assert stand > 2, "some shards were finished before the disk was full"
    ballast.unlink()
    _goes_on(world, expected)


def test_an_output_that_became_read_only(world: Path, disk: Path, expected: dict[str, Any]) -> None:
    quick_worlds.run(world, limit=4)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        with pytest.raises(OSError, match="Read-only file system") as raised:
            quick_worlds.run(world)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    _in_one_line(raised.value)
    _goes_on(world, expected)


def _vanish_after(world: Path, rows: int, path: Path) -> pytest.ExceptionInfo[DatasetError]:
    """A run during which `path` is moved away after so many rows."""
    done = 0

    def rows_done(outcomes: dict[str, int]) -> None:
        nonlocal done
        done += sum(outcomes.values())
        if done >= rows and path.exists():
            path.rename(path.with_name("moved"))

    with pytest.raises(DatasetError) as raised:
        quick_worlds.run(world, rows_done=rows_done)
    _in_one_line(raised.value)
    return raised


def test_an_input_that_vanishes(world: Path, expected: dict[str, Any]) -> None:
    data = world.parent / "data"
    raised = _vanish_after(world, 24, data)
    assert "a.parquet is no longer there" in str(raised.value)
    assert Ledger(world.parent / "runs/quick").load().manifests
    with pytest.raises(DatasetError, match="is not there"):
        quick_worlds.run(world)
    (world.parent / "moved").rename(data)
    _goes_on(world, expected)


def test_an_input_that_is_written_anew_meanwhile(world: Path) -> None:
    path = world.parent / "data" / "a.parquet"

    def rows_done(outcomes: dict[str, int]) -> None:
        quick_worlds.write(path, quick_worlds.rows(*COUNTS)[::-1])

    with pytest.raises(DatasetError, match=r"a\.parquet was changed while the run was under way"):
        quick_worlds.run(world, rows_done=rows_done)
    job, summary = quick_worlds.run(world)
    assert summary["outcomes"]["completed"] == COUNTS[1] + COUNTS[2]
    given = {each["id"]: each for each in quick_worlds.rows(*COUNTS)}
    for row_id, each in _rows(job).items():
        if each["missing"] != "text":
            assert each["text"] == given[row_id]["text"]


def test_an_image_that_vanishes_does_not_become_an_observed_row_without_one(
    tmp_path: Path,
) -> None:
    import json

    data = tmp_path / "data"
    data.mkdir()
    given = quick_worlds.rows(20, 0, 0)
    for number, each in enumerate(given):
        (data / f"{number}.png").write_bytes(each["image"]["bytes"])
        given[number] = {"id": each["id"], "image": f"{number}.png", "text": each["text"]}
    lines = "\n".join(json.dumps(each) for each in given)
    (data / "rows.jsonl").write_text(lines, encoding="utf-8")
    config = quick_worlds.config(tmp_path)

    def rows_done(outcomes: dict[str, int]) -> None:
        (data / "17.png").unlink(missing_ok=True)

    with pytest.raises(DatasetError, match=r"changed .* \(row 'row 017': no such file '.*'\)"):
        quick_worlds.run(config, rows_done=rows_done)
    job, summary = quick_worlds.run(config)
    assert summary["outcomes"] == {"observed": 19, "completed": 1, "rejected": 0, "failed": 0}
    assert quick_worlds.completed(job)["row 017"]["missing"] == "image"


def test_a_part_without_a_manifest_is_no_part_of_the_dataset(world: Path) -> None:
    """What a run that was killed before its manifest left behind, looked at before the next run."""
    job, _ = quick_worlds.run(world)
    rows, parts = _rows(job), job.folder / "completed"
    debris = parts / "part-000099.parquet"
    debris.write_bytes((parts / "part-000001.parquet").read_bytes())
    again = Job(job.config)
    assert _rows(again) == rows
    exported = export_run(again, ExportSettings())
    assert exported.rows == len(rows)
    page = report_run(again).read_text(encoding="utf-8")
    assert f"{len(rows)} rows" in page or f">{len(rows)}<" in page
    with again.lock():
        again.begin()
    assert not debris.exists()
