"""Schedules on real Prefect servers: what fires, what dies, what never overlaps, what is shown."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.config.config import load_config
from pipeline.job import Job
from pipeline.storage.errors import RunLocked
from tests import quick_worlds as worlds
from tests.calls import LOG, calls

ROOT = Path(__file__).parents[2]
PATIENCE = 400.0


def environment(folder: Path) -> dict[str, str]:
    """That of a user who has set up no Prefect, with the parts of the tests to import."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PYTHONPATH": str(ROOT),
        LOG: str(folder),
    }


def heed_interrupts() -> None:
    """Where the tests run in the background, a child would ignore what ends it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def slow_world(folder: Path, seconds: float) -> Path:
    """Forty whole rows and twelve without a text, in shards of four that take their time."""
    worlds.write(folder / "data" / "a.parquet", worlds.rows(40, 12, 0))
    captioner = {"kind": "tests.quick_parts:QuickCaptioner", "row_seconds": seconds}
    run = {"shard_size": 4, "block_size": 4}
    return worlds.config(folder, captioner=captioner, run=run)


def rag4dmc(*words: object) -> list[str]:
    return [sys.executable, "-m", "flows.cli", *map(str, words)]


def wait_for(what: str, found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.3)
    raise AssertionError(f"no {what} within {PATIENCE:.0f} s")


class Api:
    """What the server says over HTTP; asked again where SQLite is busy, as Prefect's client does."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **values: Any) -> Any:
        return self.reply("POST", path, json=values)

    def get(self, path: str) -> Any:
        return self.reply("GET", path)

    def reply(self, method: str, path: str, **content: Any) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            reply = httpx.request(method, f"{self.url}/{path}", timeout=60, **content)
            if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                break
            time.sleep(1.0)
        assert reply.is_success, reply.text
        return reply.json()

    def states(self) -> Counter[str]:
        return Counter(run["state_type"] for run in self.ask("flow_runs/filter"))

    def start(self, flow: str, name: str, config: Path) -> str:
        found = self.get(f"deployments/name/{flow}/{name}")
        run = self.ask(
            f"deployments/{found['id']}/create_flow_run",
            parameters={"config": str(config)},
            state={"type": "SCHEDULED"},
        )
        return run["id"]

    def state(self, run: str) -> str:
        return self.get(f"flow_runs/{run}")["state_type"]

    def artifacts(self) -> dict[str, dict[str, Any]]:
        """The latest artifact by key."""
        found = self.ask("artifacts/filter", sort="CREATED_DESC")
        return {artifact["key"]: artifact for artifact in reversed(found)}


@pytest.mark.slow
def test_a_schedule_fires_and_the_run_after_a_killed_one_ends_it(tmp_path: Path) -> None:
    config = slow_world(tmp_path, seconds=1.0)
    job = Job(load_config(config))
    process = subprocess.Popen(
        rag4dmc("serve", config, "--cron", "* * * * *"),
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_interrupts,
    )
    try:
        assert process.stdout
        told = process.stdout.readline()
        assert told.startswith("serving quick: * * * * * (UTC), Prefect server http://127.0.0.1:")
        api = Api(told.split("Prefect server ")[1].split(";")[0])
        # Told of before the server was asked whether it serves, so whoever is killed is known.
        wait_for("scheduled run", lambda: len(calls(tmp_path)) >= 6)
        pid = calls(tmp_path)[-1][0]
        with pytest.raises(RunLocked, match=f"pid {pid} "), job.lock():
            pass
        os.kill(pid, signal.SIGKILL)
        wait_for("crash", lambda: api.states()["CRASHED"] == 1)
        wait_for("good run", lambda: api.states()["COMPLETED"] >= 1)
        assert api.states()["FAILED"] == 0
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=120)[0]
    assert process.returncode in (0, 130, -signal.SIGINT), rest
    rows = worlds.completed(job)
    assert Counter(row["status"] for row in rows.values()) == {"observed": 40, "completed": 12}
    times = Counter(row for _, row in calls(tmp_path))
    # The shard that was under way is done again, the one before it is not.
    assert len(times) == 12 and sum(count - 1 for count in times.values()) <= 4
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{api.url}/health", timeout=5)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Path]]:
    """A server with the deployments of `prefect.yaml`, and a worker of their pool."""
    from flows.deployments import standing_server

    folder = tmp_path_factory.mktemp("worker")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            patch.delenv(name)
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        with standing_server() as url:
            prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
            env = environment(folder) | {"PREFECT_API_URL": url}
            for words in (
                ["work-pool", "create", "rag4dmc", "--type", "process"],
                ["deploy", "--all"],
            ):
                subprocess.run(
                    [*prefect, *words], cwd=ROOT, env=env, check=True, capture_output=True
                )
            process = subprocess.Popen(
                [*prefect, "worker", "start", "--pool", "rag4dmc"],
                cwd=ROOT,
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=heed_interrupts,
            )
            yield Api(url), folder
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def two_runs(worker: tuple[Api, Path]) -> list[str]:
    """Two runs of one config that were started at once, both ended."""
    api, folder = worker
    config = slow_world(folder, seconds=1.0)
    runs = [api.start("rag4dmc-run", "run", config) for _ in range(2)]
    ended = {"COMPLETED", "CANCELLED", "FAILED", "CRASHED"}
    wait_for("end of both", lambda: all(api.state(run) in ended for run in runs))
    return runs


@pytest.mark.slow
class TestWorker:
    def test_a_worker_runs_the_build_deployment(self, worker: tuple[Api, Path]) -> None:
        api, folder = worker
        config = slow_world(folder, seconds=1.0)
        run = api.start("rag4dmc-build", "build", config)
        wait_for(
            "end of the build", lambda: api.state(run) not in ("SCHEDULED", "PENDING", "RUNNING")
        )
        assert api.state(run) == "COMPLETED"
        job = Job(load_config(config))
        assert job.knowledge.checked().manifest["counts"]["internal"] == 40
        assert not calls(folder)

    def test_of_two_runs_at_once_the_second_is_cancelled(
        self, worker: tuple[Api, Path], two_runs: list[str]
    ) -> None:
        api, folder = worker
        assert Counter(map(api.state, two_runs)) == {"COMPLETED": 1, "CANCELLED": 1}
        assert max(Counter(row for _, row in calls(folder)).values()) == 1

    def test_the_server_shows_progress_outcomes_and_summary(
        self, worker: tuple[Api, Path], two_runs: list[str]
    ) -> None:
        found = worker[0].artifacts()
        assert found["rag4dmc-quick-progress"]["type"] == "progress"
        assert float(found["rag4dmc-quick-progress"]["data"]) == 100.0
        assert re.fullmatch(
            r"pass rows through: 40 of 40 \(.*40 observed\)"
            r" · complete texts: 12 of 12 \(.*12 completed\)",
            found["rag4dmc-quick-progress"]["description"],
        )
        rows = json.loads(found["rag4dmc-quick-outcomes"]["data"])
        assert rows[-1] == {
            "missing": "all rows",
            "observed": 40,
            "completed": 12,
            "rejected": 0,
            "failed": 0,
        }
        assert {row["missing"] for row in rows} == {"none", "text", "all rows"}
        assert "12 done" in found["rag4dmc-quick-summary"]["data"] or (
            "52 rows done" in found["rag4dmc-quick-summary"]["data"]
        )

    def test_the_servers_telemetry_is_off(self, worker: tuple[Api, Path]) -> None:
        settings = worker[0].get("admin/settings")
        assert settings["server"]["analytics_enabled"] is False


@pytest.mark.slow
def test_a_plain_run_prints_no_server_noise_and_calls_nobody(tmp_path: Path) -> None:
    worlds.write(tmp_path / "data" / "a.parquet", worlds.rows(40, 6, 6))
    config = worlds.config(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        # Whatever goes to another machine over HTTPS would come by here.
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        told = subprocess.run(
            rag4dmc("run", config),
            cwd=ROOT,
            env=environment(tmp_path) | {"HTTPS_PROXY": proxy, "https_proxy": proxy},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert told.returncode == 0, told.stderr
    noise = [line for line in told.stdout.splitlines() if not line.startswith(KNOWN)]
    assert noise == []
    for word in ("prefect", "server", "http", "INFO", "Flow run", "Task run"):
        assert word.lower() not in told.stderr.lower()


@pytest.mark.slow
def test_a_run_that_is_told_to_end_leaves_no_server_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        rag4dmc("run", slow_world(tmp_path, seconds=1.0)),
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for("first row", lambda: calls(tmp_path))
    assert len(servers_of(tmp_path)) == 1
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    wait_for("end of the server", lambda: not servers_of(tmp_path))


def servers_of(folder: Path) -> list[str]:
    """Processes other than the run whose Prefect lives in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if f"PREFECT_HOME={folder / 'prefect'}".encode() in variables and b"uvicorn" in words:
            found.append(process.name)
    return found


KNOWN = ("52 rows: ", "  ", "completed dataset: ", "report: ", "since ", "in the first run")
