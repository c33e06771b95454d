"""The job as Prefect flows: `build_flow`, and `run_flow` with one task run a shard.

Tasks are handed paths; whatever is loaded stays within the process that loaded it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from flows.progress import RunView
from pipeline.completion import ShardPlan
from pipeline.config import load_config
from pipeline.job import Job, Plan
from pipeline.ledger import count_outcomes, shard_name, write_whole

_jobs: dict[str, Job] = {}
_views: dict[str, RunView] = {}


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
    """Forget a job, so that the next run of this process reads everything afresh."""
    _jobs.pop(config, None)
    _views.pop(config, None)


@task(name="scan", cache_policy=NO_CACHE)
def scan_task(config: str) -> dict[str, int]:
    """Read what is new in the dataset; rows by what they lack."""
    return job_of(config).catalog.counts()


@task(name="build-knowledge-base", cache_policy=NO_CACHE)
def build_task(config: str) -> bool:
    """Build the knowledge base where it is stale."""
    return job_of(config).build()


@task(name="complete-shard", task_run_name="{name}", cache_policy=NO_CACHE)
def shard_task(config: str, name: str, plan: str) -> dict[str, int]:
    """Complete the rows of a shard; outcomes by count."""
    job = job_of(config)
    path = Path(plan)
    view = _views.get(config)
    manifest = job.complete_shard(
        ShardPlan.parse(path.read_text(encoding="utf-8")),
        view.rows_done if view else None,
    )
    path.unlink()
    return count_outcomes(manifest.entries)


@task(name="finish", cache_policy=NO_CACHE)
def finish_task(config: str) -> dict[str, Any]:
    """Tidy the completed dataset and sum up."""
    return job_of(config).finish()


@task(name="report", cache_policy=NO_CACHE)
def report_task(config: str, summary: dict[str, Any]) -> dict[str, Any]:
    """Keep the summary and write the report page."""
    return job_of(config).present(summary)


def _complete(config: str, job: Job, plan: Plan) -> None:
    """One task a shard."""
    if any(shard.missing for shard in plan.shards):
        job.knowledge_base  # noqa: B018 - found damaged now rather than in a shard
    folder = job.folder / "plan"
    for shard in plan.shards:
        write_whole(folder / f"{shard_name(shard.number)}.json", shard.dump())
    for shard in plan.shards:
        name = shard_name(shard.number)
        shard_task(config, name, str(folder / f"{name}.json"))


@flow(name="rag4dmc-build")
def build_flow(config: str) -> bool:
    """Build the knowledge base of a config where it is stale; whether it was."""
    try:
        job = job_of(config)
        with job.lock():
            job.begin()
            scan_task(config)
            return build_task(config)
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
    try:
        job = job_of(config)
        with job.lock():
            job.begin()
            with job.step("scan"):
                scan_task(config)
            with job.step("knowledge base"):
                built = build_task(config)
            plan = job.plan(limit, retry_failed)
            get_run_logger().info(
                "%d rows stand, %s pending in %d shards",
                plan.done,
                plan.pending,
                len(plan.shards),
            )
            rows = sum(len(shard.rows) for shard in plan.shards)
            if config in _views:
                _views[config].rows_expected(rows)
            with job.step("completion"):
                _complete(config, job, plan)
            with job.step("tidying"):
                summary = finish_task(config)
            summary |= {
                "built": built,
                "done_now": rows,
                "held_back": plan.held_back,
                "deleted": plan.deleted,
            }
            return report_task(config, summary)
    finally:
        leave(config)
