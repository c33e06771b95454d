"""Engines: the same output from Ray and Dask workers as from one process, whoever dies."""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows import engines
from flows import run as flow
from flows.cli import app
from pipeline.config.config import load_config
from pipeline.config.engine import EngineSettings
from pipeline.job import Job
from pipeline.ledger.ledger import shard_name, write_whole
from pipeline.storage.errors import ConfigError, RunFailed
from tests import quick_worlds as worlds
from tests.calls import FILE, LOG, calls, wait_for_calls
from tests.pipeline.completion.careless import CarefulCaptioner
from tests.quick_parts import QuickCaptioner, QuickEncoder

ROOT = Path(__file__).parents[2]
ROWS = worlds.rows(40, 24, 24)
# These tell in their prompts all that they received, pictures and numbers too.
TELLING = {
    "captioner": {"kind": "tests.pipeline.completion.careless:CarefulCaptioner"},
    "image_generator": {"kind": "tests.pipeline.completion.careless:CarefulPainter"},
}
# What is recorded of a half wherever it was made.
MADE = ("seed", "score", "attempt", "chosen", "prompt", "examples", "dropped", "candidates")


def world(folder: Path, **changes: Any) -> Path:
    worlds.write(folder / "data" / "a.parquet", ROWS)
    return worlds.config(folder, **(TELLING | changes))


def halves(job: Job) -> dict[str, tuple[Any, ...]]:
    """What a run made, but for which run and knowledge base it was."""
    return {
        row_id: (row["status"], row["text"], row["image"], row["note"])
        + tuple((row["completion"] or {}).get(name) for name in MADE)
        for row_id, row in worlds.completed(job).items()
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    job, _ = worlds.run(world(tmp_path_factory.mktemp("local")))
    return halves(job)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where workers, which have the environment that was there when they began, log their rows."""
    folder = tmp_path_factory.mktemp("log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv(LOG, str(folder))
        yield folder


@pytest.fixture(scope="module")
def ray_address(log: Path) -> Iterator[str]:
    """Two Ray nodes of one core each, which share a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        cluster.add_node(num_cpus=1)
        yield cluster.address
        cluster.shutdown()


def run(config: Path) -> tuple[Job, dict[str, Any]]:
    from flows.run import run_flow

    summary = run_flow(str(config))
    return Job(load_config(config)), summary


def kill_a_worker(log: Path, after: int) -> threading.Thread:
    """Kill, from a thread, whoever did the row that comes after so many."""

    def watch() -> None:
        wait_for_calls(log, after + 1, seconds=600)
        pid = calls(log)[after][0]
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def check_with_a_death(
    config: Path, log: Path, expected: dict[str, tuple[Any, ...]]
) -> dict[str, Any]:
    """Run while a worker is killed: the same is made, and only its shard is done twice."""
    (log / FILE).unlink(missing_ok=True)
    killer = kill_a_worker(log, after=10)
    job, summary = run(config)
    killer.join()
    assert summary["outcomes"] == {"observed": 40, "completed": 48, "rejected": 0, "failed": 0}
    assert halves(job) == expected
    asked = calls(log)
    # Two workers, and the one that came in place of the dead.
    assert len({pid for pid, _ in asked}) >= 3
    times = Counter(row for _, row in asked)
    again = [row for row, count in times.items() if count > 1]
    assert len(times) == 48 and max(times.values()) <= 2
    assert 0 < len(again) <= job.config.run.shard_size
    return summary


SLOW = {section: {**part, "row_seconds": 0.2} for section, part in TELLING.items()}


@pytest.mark.slow
class TestRay:
    def test_a_dead_worker_of_two_nodes_costs_its_shard_alone_and_changes_nothing(
        self,
        server: None,
        ray_address: str,
        log: Path,
        expected: dict[str, tuple[Any, ...]],
        tmp_path: Path,
    ) -> None:
        engine = {"kind": "ray", "address": ray_address, "gpus": 0}
        check_with_a_death(world(tmp_path, engine=engine, **SLOW), log, expected)

    def test_what_no_node_has_is_refused_instead_of_waited_for(self, ray_address: str) -> None:
        settings = EngineSettings(kind="ray", address=ray_address, cpus=3, gpus=0)
        with pytest.raises(ConfigError, match="no machine of the cluster has 3 cores"):
            list(engines.run_tasks(settings, None, [[{}]]))


@pytest.mark.slow
class TestDask:
    def test_a_dead_worker_costs_its_shard_alone_and_changes_nothing(
        self, server: None, log: Path, expected: dict[str, tuple[Any, ...]], tmp_path: Path
    ) -> None:
        pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
        engine = {"kind": "dask", "workers": 2, "gpus": 0}
        check_with_a_death(world(tmp_path, engine=engine, **SLOW), log, expected)

    def test_workers_of_a_run_on_a_url_fetch_and_send_all_they_share(
        self,
        server: None,
        log: Path,
        expected: dict[str, tuple[Any, ...]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
        engine = {"kind": "dask", "workers": 2, "gpus": 0}
        job, summary = run(world(tmp_path, engine=engine, output=f"file://{tmp_path}/remote"))
        assert summary["outcomes"] == {"observed": 40, "completed": 48, "rejected": 0, "failed": 0}
        assert halves(job) == expected
        parts = {path.name for path in (tmp_path / "remote" / "completed").iterdir()}
        assert parts == {path.name for path in (job.folder / "completed").glob("*.parquet")}
        assert len(parts) == 11
        assert not [path for path in (tmp_path / "remote" / "plan").rglob("*") if path.is_file()]

    def test_a_cluster_that_is_not_there_is_told_of_in_a_line(self) -> None:
        pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
        import dask

        settings = EngineSettings(kind="dask", address="tcp://127.0.0.1:9", gpus=0)
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
            pytest.raises(RunFailed, match=r"no dask cluster \(tcp://127.0.0.1:9\)"),
        ):
            list(engines.run_tasks(settings, None, [[{}]]))


class TestWorker:
    """What a worker of any cluster does with the shards that it is handed."""

    def handed_over(self, config: Path) -> dict[str, str]:
        """A shard of a run that has come so far."""
        job = Job(load_config(config))
        job.begin()
        job.build()
        shard = next(shard for shard in job.plan().shards if shard.missing == "text")
        name = shard_name(shard.number)
        write_whole(job.folder / flow.PLAN / f"{name}.json", shard.dump())
        dataset = job.sources.dataset
        read = {"files": [file.name for file in dataset.files], "columns": dataset.learned()}
        write_whole(job.folder / flow.PLAN / flow.FILES, json.dumps(read))
        job.close()
        return {"config": str(config), "name": name, "run_id": job.run_id}

    def test_it_holds_the_models_of_one_run_at_a_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flow, "_jobs", {})
        held: list[Any] = []
        for part in (QuickEncoder, QuickCaptioner):
            monkeypatch.setattr(part, "load", lambda self: held.append(self))
            monkeypatch.setattr(part, "close", lambda self: held.remove(self))
        one, other = (world(tmp_path / name) for name in ("one", "other"))
        for config in (one, other, one):
            former = list(held)
            call = self.handed_over(config)
            assert held == former, "the run that plans frees its own"
            assert flow.shard_task.fn(**call)["outcomes"]["completed"] == 8
            assert [type(part) for part in held] == [QuickEncoder, CarefulCaptioner]
            assert not any(part in former for part in held)
            assert list(flow._jobs) == [str(config)]

    @pytest.mark.parametrize(
        ("changed", "named"),
        [({"captioner": None}, "attempts"), ({"run": {"seed": 5}}, "run.seed"), ({}, None)],
    )
    def test_it_records_no_settings_that_it_has_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Any, named: str | None
    ) -> None:
        monkeypatch.setattr(flow, "_jobs", {})
        config = world(tmp_path)
        call = self.handed_over(config)
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
        # Loaded anew, as by a worker that starts after the config was changed.
        config.write_text(yaml.safe_dump(values | changed), encoding="utf-8")
        if named is None:
            assert flow.shard_task.fn(**call)["outcomes"]["completed"] == 8
            return
        with pytest.raises(ConfigError, match=f"^{named}: is another one for this worker"):
            flow.shard_task.fn(**call)
        assert not list((tmp_path / "runs/quick/ledger").glob("shard-*"))


class TestSettings:
    def test_a_name_alone_is_the_kind(self, tmp_path: Path) -> None:
        assert load_config(world(tmp_path, engine="ray")).engine.kind == "ray"

    @pytest.mark.parametrize(
        ("engine", "told"),
        [
            ("spark", "engine.kind: "),
            ({"workers": 2}, "workers is for the kinds ray and dask"),
            ({"kind": "ray", "gpus": -1}, "engine.gpus: "),
            ({"kind": "ray", "address": "a:1", "workers": 2}, "only where no address is given"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tmp_path: Path, engine: Any, told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            load_config(world(tmp_path, engine=engine))

    @pytest.mark.parametrize("kind", ["ray", "dask"])
    def test_a_missing_extra_is_named_with_the_command(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(engines.PACKAGES, kind, "a_package_that_is_not_there")
        result = CliRunner().invoke(app, ["run", str(world(tmp_path, engine=kind))])
        assert result.exit_code == 2
        assert f"pip install -e '.[{kind}]'" in result.stderr
        assert not (tmp_path / "runs").exists()

    def test_gpus_that_this_machine_has_not_are_refused(self) -> None:
        import torch

        more = torch.cuda.device_count() + 1
        settings = EngineSettings(kind="dask", gpus=more)
        with pytest.raises(ConfigError, match=rf"1 workers of {more} GPUs need {more}"):
            engines._shares(settings)
