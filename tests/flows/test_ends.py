"""How commands end: by signals, in a line and in seconds, and nothing that they started outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from flows.watchdog import MARK, PROCESSES
from tests import quick_worlds as worlds
from tests.calls import LOG, wait_for_calls

ROOT = Path(__file__).parents[2]
# What a loaded machine makes of a few seconds.
SECONDS = 30.0

pytestmark = pytest.mark.skipif(
    not Path(PROCESSES, "self", "environ").is_file(), reason="there is no /proc"
)


def slow_world(folder: Path, **changes: object) -> Path:
    worlds.write(folder / "data" / "a.parquet", worlds.rows(40, 12, 0))
    captioner = {"kind": "tests.quick_parts:QuickCaptioner", "row_seconds": 1.0}
    return worlds.config(folder, captioner=captioner, **changes)


def start(words: Sequence[object], folder: Path) -> subprocess.Popen[str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith("PREFECT_") and n != MARK}
    own = {"PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": str(ROOT), LOG: str(folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *map(str, words)],
        env=kept | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )


def heed_signals() -> None:
    """Undo what a shell in the background, or nohup, has the tests ignore, and their children with them."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def started_for(folder: Path) -> dict[int, str]:
    """Processes that have this test's folder in their environment, with their command lines."""
    found = {}
    for path in Path(PROCESSES).glob("[0-9]*"):
        try:
            if f"PREFECT_HOME={folder}/prefect".encode() in (path / "environ").read_bytes():
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if words:  # else it has ended, and waits for whoever asks
                    found[int(path.name)] = words
        except OSError:
            continue
    return found


def all_end(folder: Path) -> bool:
    deadline = time.monotonic() + SECONDS
    while started_for(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not started_for(folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_run_ends_by_a_signal_in_seconds_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start(["run", slow_world(tmp_path)], tmp_path)
    wait_for_calls(tmp_path, 2)
    assert any("uvicorn" in words for words in started_for(tmp_path).values())
    sent = time.monotonic()
    process.send_signal(number)
    _, told = process.communicate()
    assert time.monotonic() - sent < SECONDS
    assert all_end(tmp_path)
    if number == signal.SIGKILL:
        return
    assert process.returncode == 128 + number
    lines = told.splitlines()
    assert lines[-1] == (
        "rag4dmc: interrupted; what was done stands, and the same command goes on from there"
    )
    assert "Traceback" not in told
    assert sum(line.startswith("rag4dmc: ") for line in lines) == 1


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "dask"])
def test_workers_that_a_run_started_end_with_it_when_it_is_killed(
    tmp_path: Path, engine: str
) -> None:
    pytest.importorskip(f"prefect_{engine}", reason=f"the extra `{engine}` is not installed")
    config = slow_world(tmp_path, engine={"kind": engine, "gpus": 0, "workers": 2})
    process = start(["run", config], tmp_path)
    wait_for_calls(tmp_path, 2, seconds=500)
    assert len(started_for(tmp_path)) > 3
    process.kill()
    process.communicate()
    assert all_end(tmp_path), started_for(tmp_path)


@pytest.mark.slow
def test_what_serve_started_ends_with_it_when_it_is_killed(tmp_path: Path) -> None:
    config = slow_world(tmp_path)
    process = start(["serve", config, "--cron", "* * * * *"], tmp_path)
    wait_for_calls(tmp_path, 1, seconds=500)
    assert any("prefect" in words for words in started_for(tmp_path).values())
    process.kill()
    process.communicate()
    assert all_end(tmp_path), started_for(tmp_path)


def test_what_a_process_started_ends_with_it_and_nothing_else_does(tmp_path: Path) -> None:
    """Also what has left its session and no longer has it as a parent, and what heeds no SIGTERM."""
    script = (
        "import subprocess, sys, time; from flows.watchdog import watch; watch();"
        "code = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)';"
        "twice = f'import subprocess, sys; subprocess.Popen([sys.executable, \"-c\", {code!r}])';"
        "subprocess.run([sys.executable, '-c', twice], start_new_session=True);"
        "print('started', flush=True); time.sleep(99)"
    )
    environment = os.environ | {"PREFECT_HOME": f"{tmp_path}/prefect", "PYTHONPATH": str(ROOT)}
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(99)"],
        env=environment | {MARK: "another"},
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    assert len(started_for(tmp_path)) == 3
    process.kill()
    process.communicate()
    deadline = time.monotonic() + SECONDS
    while set(started_for(tmp_path)) != {bystander.pid} and time.monotonic() < deadline:
        time.sleep(0.2)
    assert set(started_for(tmp_path)) == {bystander.pid}
    bystander.kill()
    bystander.wait()


def test_what_hides_its_environment_ends_with_who_started_it(tmp_path: Path) -> None:
    """Some processes write their title over it; this one has none, nor has what it starts."""
    hidden = "import subprocess, sys, time; {}print({!r}, flush=True); time.sleep(99)"
    inner = hidden.format("", "inner")
    outer = hidden.format(
        f"subprocess.Popen([sys.executable, '-c', {inner!r}], env={{}});", "outer"
    )
    script = (
        "import subprocess, sys, time; from flows.watchdog import watch;"
        f"before = subprocess.Popen([sys.executable, '-c', {inner!r}], env={{}});"
        "print(before.pid, flush=True); watch(); time.sleep(2);"
        f"subprocess.run([sys.executable, '-c', {outer!r}], env={{}})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(4)]
    (before,) = [int(line) for line in said if line.strip().isdigit()]
    assert sorted(set(said)) == sorted({f"{before}\n", "inner\n", "outer\n"})
    descendants = children_of(process.pid)
    assert len(descendants) == 3
    time.sleep(2)
    process.kill()
    process.wait()
    deadline = time.monotonic() + SECONDS
    while running(descendants) != {before} and time.monotonic() < deadline:
        time.sleep(0.2)
    left = running(descendants)
    os.kill(before, signal.SIGKILL)
    assert left == {before}


def children_of(number: int) -> set[int]:
    """All descendants of a process but its watchdog."""
    names = Path(PROCESSES).glob("[0-9]*")
    parents = {int(one.name): stat_of(int(one.name))[1] for one in names if stat_of(int(one.name))}
    found, new = set(), {number}
    while new:
        new = {one for one, parent in parents.items() if parent in new}
        found |= new
    return {
        one
        for one in found
        if b"watchdog.py" not in Path(PROCESSES, str(one), "cmdline").read_bytes()
    }


def running(numbers: set[int]) -> set[int]:
    return {one for one in numbers if (found := stat_of(one)) and found[0] != "Z"}


def stat_of(number: int) -> tuple[str, int] | None:
    try:
        told = Path(PROCESSES, str(number), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return told[0], int(told[1])
