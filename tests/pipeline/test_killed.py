"""A run that is killed and started again ends as an undisturbed one, and does nothing twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config.config import load_config
from pipeline.job import Job
from pipeline.ledger.ledger import Ledger
from tests import quick_worlds
from tests.calls import FILE, LOG, calls, wait_for_calls
from tests.killing import ROOT, Point, Runs

pytestmark = pytest.mark.slow

SHARDS = 14
MOMENTS = 20

BUILDING = {
    "while the catalog is kept": Point("os.rename", r"catalog/internal/"),
    "between embeddings and their keys": Point("open", r"image/keys\.bin$", 3),
    "amid an embedding": Point("open", r"text/keys\.bin$", 3, tear="rows.f16"),
    "amid an index": Point("index written", r"\.faiss$", 2),
    "before the knowledge base's manifest": Point("open", r"kb\.building/manifest\.json"),
    "before the knowledge base is swapped in": Point("os.rename", r"quick/kb$"),
    "before the standards": Point("os.rename", r"standards\.json$"),
    "before the stamp of the build": Point("os.rename", r"kb-inputs\.json$"),
}
COMPLETING = {
    "amid a Parquet file": Point("rows written", r"part-000004", 1),
    "before a part is whole": Point("os.rename", r"completed/part-000009\.parquet$"),
    "between a part and its manifest": Point("open", r"ledger/\.shard-000005\.json"),
    "amid a manifest": Point(
        "os.rename", r"ledger/shard-000009\.json$", tear=".shard-000009.json.*.tmp"
    ),
    "after the last shard": Point("os.rename", r"summaries/"),
    "before the export is swapped in": Point("os.rename", r"exports/parquet$"),
    "amid the export": Point("open", r"parquet\.building/README\.md"),
    "before the report": Point("os.rename", r"report/index\.html$"),
    "before the last note": Point("os.rename", r"presented\.json$"),
}
# While a second run over changed data tidies up.
COMPACTING = {
    "amid the history": Point("rows written", r"history/"),
    "between history and the new part": Point("rows written", r"completed/.*part", 3),
    "between the new part and its manifest": Point("open", r"ledger/\.shard", 3),
    "before the old part is removed": Point("os.remove", r"completed/part"),
    "before the old manifest is removed": Point("os.remove", r"ledger/shard"),
    "while the old export is put aside": Point("os.rename", r"parquet\.retired$"),
    "between the two exports": Point("os.rename", r"exports/parquet$"),
}


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with Runs() as server:
        yield server


def _dataset() -> list[dict[str, Any]]:
    return quick_worlds.rows(44, 40, 24, 3)


def _changed() -> list[dict[str, Any]]:
    """Two rows became whole, one is another picture, two are gone, three are new."""
    data = _dataset()
    lacking = [each for each in data if each["text"] is None and each["image"]]
    lacking[0]["text"] = "a red square at last"
    lacking[1]["text"] = "a blue square at last"
    lacking[2]["image"] = quick_worlds.row(777)["image"]
    data.remove(lacking[3])
    data.remove(next(each for each in data if each["text"] and each["image"]))
    return data + [quick_worlds.row(200 + n, lacks) for n, lacks in enumerate(("text", "image"))]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and config; no run yet."""
    folder = tmp_path_factory.mktemp("world") / "w"
    quick_worlds.write(folder / "data" / "a.parquet", _dataset())
    quick_worlds.write(folder / "more.parquet", [quick_worlds.row(n) for n in range(300, 340)])
    quick_worlds.config(
        folder,
        external=[{"name": "more", "path": "more.parquet"}],
        export=[{"format": "parquet"}],
    )
    return folder


@pytest.fixture(scope="module")
def undisturbed(world: Path, runs: Runs) -> Path:
    """The same after one run."""
    folder = shutil.copytree(world, world.with_name("undisturbed"))
    assert runs.run(folder / "dmc.yaml") == 0, _output(folder)
    assert len(list((folder / "runs/quick/ledger").glob("*.json"))) == SHARDS
    return folder


@pytest.fixture(scope="module")
def built(world: Path, undisturbed: Path) -> Path:
    """The same with a knowledge base, before the first shard."""
    folder = shutil.copytree(undisturbed, world.with_name("built"))
    for name in ("ledger", "completed", "exports", "report", "summaries"):
        shutil.rmtree(folder / "runs/quick" / name)
    for name in ("summary.json", "presented.json"):
        (folder / "runs/quick" / name).unlink()
    (folder / FILE).unlink()
    return folder


@pytest.fixture(scope="module")
def changed(world: Path, undisturbed: Path, runs: Runs) -> Path:
    """An undisturbed second run over changed data."""
    folder = shutil.copytree(undisturbed, world.with_name("changed"))
    quick_worlds.write(folder / "data" / "a.parquet", _changed())
    assert runs.run(folder / "dmc.yaml") == 0, _output(folder)
    return folder


def _output(folder: Path) -> str:
    return (folder / "output.txt").read_text(encoding="utf-8")


def _rows(folder: Path) -> dict[str, Any]:
    """The completed dataset by id, but for which run made a row."""
    found = quick_worlds.completed(Job(load_config(folder / "dmc.yaml")))
    for each in found.values():
        if each["completion"]:
            del each["completion"]["run_id"]
    return found


def _exported(folder: Path) -> dict[str, Any]:
    table = pq.read_table(folder / "runs/quick/exports/parquet/data")
    return {each["id"]: (each["image"], each["text"]) for each in table.to_pylist()}


def _history(folder: Path) -> dict[str, Any]:
    found = {}
    for path in (folder / "runs/quick/history").glob("*.parquet"):
        for each in pq.read_table(path).to_pylist():
            found[each["id"]] = (each["image"], each["text"])
    return found


def _finished(folder: Path) -> set[tuple[str, str]]:
    """Rows of the shards that stand, with the digest of what is observed of them."""
    held = Ledger(folder / "runs/quick").load().table()
    return set(zip(held["id"].to_pylist(), held["content"].to_pylist(), strict=True))


def _recovers(runs: Runs, folder: Path, expected: Path) -> None:
    """Start again after a kill: the same result, and no row of a finished shard done twice."""
    finished, before = _finished(folder), len(calls(folder))
    assert runs.run(folder / "dmc.yaml") == 0, _output(folder)
    again = {row_id for _, row_id in calls(folder)[before:]}
    assert not again & {row_id for row_id, _ in finished & _finished(expected)}
    assert _rows(folder) == _rows(expected)
    assert _exported(folder) == _exported(expected)
    assert (folder / "runs/quick/report/index.html").is_file()
    names = {path.name for path in (folder / "runs/quick").rglob("*")} - {".export.json"}
    ends = (".tmp", ".part", ".building", ".retired")
    assert not [name for name in names if name.startswith(".") or name.endswith(ends)]


@pytest.mark.parametrize("name", BUILDING)
def test_killed_while_it_builds(
    name: str, world: Path, undisturbed: Path, runs: Runs, tmp_path: Path
) -> None:
    folder = shutil.copytree(world, tmp_path / "w")
    assert runs.run(folder / "dmc.yaml", BUILDING[name]) == -signal.SIGKILL, _output(folder)
    _recovers(runs, folder, undisturbed)


@pytest.mark.parametrize("name", COMPLETING)
def test_killed_while_it_completes(
    name: str, built: Path, undisturbed: Path, runs: Runs, tmp_path: Path
) -> None:
    folder = shutil.copytree(built, tmp_path / "w")
    assert runs.run(folder / "dmc.yaml", COMPLETING[name]) == -signal.SIGKILL, _output(folder)
    _recovers(runs, folder, undisturbed)


@pytest.mark.parametrize("name", COMPACTING)
def test_killed_while_it_tidies_up(
    name: str, undisturbed: Path, changed: Path, runs: Runs, tmp_path: Path
) -> None:
    folder = shutil.copytree(undisturbed, tmp_path / "w")
    quick_worlds.write(folder / "data" / "a.parquet", _changed())
    assert runs.run(folder / "dmc.yaml", COMPACTING[name]) == -signal.SIGKILL, _output(folder)
    _recovers(runs, folder, changed)
    assert _history(folder) == _history(changed)
    assert len(_history(folder)) == 4


def test_killed_at_random_moments(
    built: Path, undisturbed: Path, runs: Runs, tmp_path: Path
) -> None:
    draw = random.Random(20)
    folder = shutil.copytree(built, tmp_path / "timed")
    group = runs.start(folder / "dmc.yaml")
    wait_for_calls(folder)
    begun = time.monotonic()
    assert runs.wait(group) == 0
    length = time.monotonic() - begun
    killed = 0
    for moment in range(MOMENTS):
        folder = shutil.copytree(built, tmp_path / f"w{moment}")
        group = runs.start(folder / "dmc.yaml")
        wait_for_calls(folder)
        delay = draw.uniform(0, length)
        time.sleep(delay)
        status = runs.kill(group)
        done = len(Ledger(folder / "runs/quick").load().manifests)
        print(f"moment {moment}: after {delay:.2f} of {length:.2f} s, {done} shards stood", status)
        killed += status == -signal.SIGKILL
        _recovers(runs, folder, undisturbed)
        shutil.rmtree(folder)
    assert killed > MOMENTS / 2


def test_the_command_killed_and_given_again(
    built: Path, undisturbed: Path, runs: Runs, tmp_path: Path
) -> None:
    folder = shutil.copytree(built, tmp_path / "w")
    config = yaml.safe_load((folder / "dmc.yaml").read_text(encoding="utf-8"))
    # Slow enough that the kill comes amid the shards of a run under Prefect.
    config["captioner"]["row_seconds"] = 0.2
    (folder / "dmc.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "flows.cli", "run", str(folder / "dmc.yaml")]
    environment = os.environ | {LOG: str(folder)}
    with (folder / "output.txt").open("wb") as output:
        options: dict[str, Any] = {"cwd": ROOT, "env": environment, "stdout": output}
        process = subprocess.Popen(command, stderr=output, start_new_session=True, **options)
        wait_for_calls(folder, 10)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        finished = _finished(folder)
        assert 0 < len(finished) < len(_rows(undisturbed))
        before = len(calls(folder))
        again = subprocess.run(command, stderr=output, check=False, **options)
    assert again.returncode == 0, _output(folder)
    assert not {row for _, row in calls(folder)[before:]} & {row for row, _ in finished}
    assert _rows(folder) == _rows(undisturbed)
    assert _exported(folder) == _exported(undisturbed)
