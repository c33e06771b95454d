"""The job as Prefect flows: `build_flow`, and `run_flow` with one task run a shard.

Tasks are handed paths; whatever is loaded stays within the process that loaded it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from flows.artifacts import RowsProgress, publish
from flows.engines import check_installed, run_tasks
from flows.pace import Pace
from flows.progress import RunView
from flows.watchdog import watch
from pipeline.config.config import load_config
from pipeline.config.dependencies import check_planned
from pipeline.dataset.dataset import DatasetError
from pipeline.job import Job
from pipeline.ledger.comparison import PASSING
from pipeline.ledger.ledger import count_outcomes
from pipeline.ledger.plan import ShardPlan
from pipeline.ledger.summary import headline, told
from pipeline.report.presentation import present
from pipeline.storage.files import write_whole
from pipeline.storage.passing import may_pass
from pipeline.storage.warned import Warned, pass_on


def _worth_a_retry(task: Any, task_run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`: `may_pass` of what the task raised."""
    return isinstance(state.data, BaseException) and may_pass(state.data)


_TRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [2.0, 10.0, 60.0],
    "retry_condition_fn": _worth_a_retry,
    "cache_policy": NO_CACHE,
}
PLAN = "plan"
FILES = "files.json"
# What a worker needs of the run's folder, and what workers put into it.
KNOWLEDGE = ("kb", "standards.json")
CHECK = "check"
DONE = ("completed", "ledger")

_jobs: dict[str, Job] = {}
_views: dict[str, RunView] = {}
_progress: dict[str, RowsProgress] = {}


def job_of(config: str) -> Job:
    """The job of a config in this process, made on first use."""
    if config not in _jobs:
        _jobs[config] = Job(load_config(config))
    return _jobs[config]


def adopt(config: str, job: Job, view: RunView) -> None:
    """Have the flows of this process use a job that exists already, and show how far it is."""
    _jobs[config] = job
    _views[config] = view


def leave(config: str) -> None:
    """Let a job go with its models, so that the next run of this process reads everything afresh."""
    if config in _jobs:
        _jobs.pop(config).close()
    for held in (_views, _progress):
        held.pop(config, None)


def _worker_job(config: str, run_id: str) -> Job:
    """The job that a shard belongs to: this process's own, or a worker's.

    A worker keeps a job until it is handed a shard of another run, for the models of both might not
    fit. It knows the files by the numbers that the run gave them, whatever has come since.
    """
    job = _jobs.get(config)
    if job is None or job.run_id != run_id:
        for held in list(_jobs):
            leave(held)
        job = Job(load_config(config))
        job.run_id = run_id
        if job.home.mirror is not None:
            job.home.mirror.pull(KNOWLEDGE)
        named = {file.name: file for file in job.sources.dataset.files}
        read = json.loads(_planned(job, FILES))
        names = read["files"]
        gone = next((name for name in names if name not in named), None)
        if gone is not None:
            raise DatasetError(f"{gone} is no longer there, or this worker does not see it")
        job.sources.dataset.files = [named[name] for name in names]
        job.sources.dataset.learn("", read["columns"])
        _jobs[config] = job
    return job


def _planned(job: Job, name: str) -> bytes:
    """A file of the run's plan, which another machine reads from the URL."""
    if job.home.mirror is not None and job.config.engine.kind != "local":
        return job.home.mirror.read(f"{PLAN}/{name}")
    return (job.folder / PLAN / name).read_bytes()


@task(name="scan", **_TRIES)
def scan_task(config: str) -> dict[str, int]:
    """Read what is new in the dataset; rows by what they lack."""
    return job_of(config).catalog.counts()


@task(name="build-knowledge-base", **_TRIES)
def build_task(config: str) -> bool:
    """Build the knowledge base where it is stale."""
    return job_of(config).build()


@task(name="complete-shard", task_run_name="{name}", **_TRIES)
def shard_task(config: str, name: str, run_id: str) -> dict[str, Any]:
    """Complete the rows of a shard; `outcomes` by count, `seconds`, the `worker` and what it `warned` of."""
    with Warned() as warned:
        job = _worker_job(config, run_id)
        shard = ShardPlan.parse(_planned(job, f"{name}.json").decode())
        progress, kind = _progress.get(config), _kind(job, shard)
        pace = Pace(job.models.loading.seconds)
        pace.begin()
        if progress is None:
            version = job.knowledge.version
            own = job.check.config if shard.checks else job.config
            check_planned(own, job.models.identity, version, shard.missing, shard.settings)
            outcomes = count_outcomes(job.complete_shard(shard).rows)
        else:
            progress.begin(name, kind)
            manifest = job.complete_shard(
                shard, partial(progress.rows_done, name, kind), partial(progress.answered, kind)
            )
            outcomes = count_outcomes(manifest.rows)
            progress.end(name, kind, outcomes)
    told = {"worker": f"{socket.gethostname()} {os.getpid()}", "warned": warned.found()}
    return {"outcomes": outcomes, "seconds": pace.spent(), **told}


def _kind(job: Job, shard: ShardPlan) -> str:
    """What is done with the rows of a shard: its half is completed or checked, or they are `PASSING`."""
    if shard.checks:
        return f"check {shard.missing}"
    return shard.missing if shard.missing in job.config.made else PASSING


@task(name="finish", **_TRIES)
def finish_task(config: str) -> dict[str, Any]:
    """Tidy the completed dataset and sum up."""
    return job_of(config).finish()


@task(name="report", **_TRIES)
def report_task(config: str, summary: dict[str, Any]) -> dict[str, Any]:
    """Keep the summary, export, and write the report page."""
    return present(job_of(config), summary)


def _complete(config: str, job: Job) -> None:
    """One task a shard, by the engine of the config."""
    checked = (shard for each in job.check.planned.values() for shard in each)
    shards = [*job.planned.shards, *checked]
    if not shards:
        # What stands of the check is summed up all the same.
        list(job.stages())
        return
    engine, mirror = job.config.engine, job.home.mirror
    folder = job.folder / PLAN
    shutil.rmtree(folder, ignore_errors=True)
    dataset = job.sources.dataset
    read = {"files": [file.name for file in dataset.files], "columns": dataset.learned()}
    write_whole(folder / FILES, json.dumps(read))
    totals: Counter[str] = Counter()
    for shard in shards:
        totals[_kind(job, shard)] += len(shard.rows)
    progress = RowsProgress(job.config.name, totals, _views.get(config), job.models.loading.seconds)
    if engine.kind == "local":
        # Block by block, from within the shard.
        _progress[config] = progress
    else:
        progress.begin_work()

    def stages() -> Iterator[list[dict[str, Any]]]:
        for stage in _with_results(job):
            for shard in stage:
                write_whole(folder / f"{shard.name}.json", shard.dump())
            if engine.kind != "local" and mirror is not None:
                mirror.push([PLAN, CHECK])
            yield [{"config": config, "name": shard.name, "run_id": job.run_id} for shard in stage]

    kinds = {shard.name: _kind(job, shard) for shard in shards}
    for call, done in run_tasks(engine, shard_task, stages()):
        if engine.kind != "local":
            pass_on(done.pop("warned"))
            progress.end_by_worker(call["name"], kinds[call["name"]], **done)
    shutil.rmtree(folder)
    if engine.kind != "local" and mirror is not None:
        mirror.push([PLAN, CHECK])
        mirror.pull(DONE)


def _with_results(job: Job) -> Iterator[Sequence[ShardPlan]]:
    """The stages of a job, each once this process sees what workers have done of the check."""
    remote = job.config.engine.kind != "local" and job.home.mirror is not None
    for stage in job.stages():
        yield stage
        if remote and any(shard.checks for shard in stage):
            assert job.home.mirror is not None
            job.home.mirror.pull([CHECK])


def _tell(config: str, job: Job, summary: dict[str, Any]) -> None:
    """Say what a run did on its page, and in a line to whoever has no view of it, as under serve.

    Not within the flow: clusters pickle that with all that it speaks of, and no view can be.
    """
    for line in (headline(summary), *told(summary)):
        get_run_logger().info("%s", line)
    if config not in _views:
        print(f"{job.config.name}: {headline(summary)}", flush=True)


@flow(name="rag4dmc-build")
def build_flow(config: str) -> bool:
    """Build the knowledge base of a config where it is stale or damaged; whether it was."""
    watch()
    try:
        job = job_of(config)
        with job.lock():
            job.begin()
            scan_task(config)
            return build_task(config) or job.mend()
    finally:
        leave(config)


@flow(name="rag4dmc-run")
def run_flow(config: str, limit: int | None = None, retry_failed: bool = False) -> dict[str, Any]:
    """Build what is stale, complete what is pending, and sum up.

    Parameters
    ----------
    config
        Path of the config.
    limit
        Most incomplete rows of this run.
    retry_failed
        Try rows again that ended in an error.

    Returns
    -------
    dict
        The summary of `pipeline.job.Job.finish`, with what this run did.
    """
    watch()
    try:
        job = job_of(config)
        check_installed(job.config.engine)
        with job.lock():
            job.begin()
            with job.step("scan"):
                scan_task(config)
            with job.step("knowledge base"):
                if job.config.engine.kind == "local":
                    # Else the models are for the workers, which may have what is missing here.
                    job.try_generators()
                built = build_task(config)
            plan = job.plan(limit, retry_failed)
            get_run_logger().info(
                "%d rows stand, %s pending in %d shards",
                plan.done,
                plan.pending,
                len(plan.shards),
            )
            with job.step("completion"):
                _complete(config, job)
            with job.step("tidying"):
                summary = finish_task(config)
            summary = report_task(config, summary | {"built": built})
            publish(job.config.name, summary)
            _tell(config, job, summary)
            return summary
    finally:
        leave(config)
