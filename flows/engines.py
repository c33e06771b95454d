"""Engines: shards as Prefect tasks in this process, or on Prefect's Ray or Dask task runner.

A cluster's worker is a process of its own, which loads its models once and keeps them from shard to
shard. A worker that dies costs the shard that it was at: the cluster hands that to another one.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from pipeline.config.engine import EngineSettings
from pipeline.storage.errors import ConfigError, RunFailed

logger = logging.getLogger(__name__)

# Tasks that are handed to a cluster ahead of those at work.
AHEAD = 256
PACKAGES = {"ray": "prefect_ray", "dask": "prefect_dask"}
_DEATHS_A_SHARD = 3

Call = dict[str, Any]
Submit = Callable[[Call], Any]


def check_installed(settings: EngineSettings) -> None:
    """Refuse an engine whose optional packages are not there.

    Raises
    ------
    ConfigError
        With the command that installs them.
    """
    package = PACKAGES.get(settings.kind)
    if package is not None and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"engine.kind: {settings.kind!r} needs packages that are not installed; install them"
            f" with: pip install -e '.[{settings.kind}]'"
        )


def run_tasks(
    settings: EngineSettings, task: Any, stages: Iterable[Sequence[Call]]
) -> Iterator[tuple[Call, Any]]:
    """Run a Prefect task once for each call, and give each with its result, in the order of the calls.

    Parameters
    ----------
    settings
    task
        A Prefect task.
    stages
        The task's parameters, in stages: one is asked for and begun when those before it are done.

    Raises
    ------
    ConfigError
        The cluster has no worker that could ever take a task.
    RunFailed
        A worker died with the same task too often.
    Exception
        What the first task that failed for good raised; those under way end first.
    """
    if settings.kind == "local":
        for calls in stages:
            for call in calls:
                yield call, task(**call)
        return
    with ExitStack() as stack:
        submit: Callable[[Any, Call], Any] | None = None
        for calls in stages:
            # Not for a run that has nothing to do.
            submit = submit or stack.enter_context(_cluster(settings))
            yield from zip(calls, _in_turn(partial(submit, task), calls), strict=True)


def _in_turn(submit: Submit, calls: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """Keep up to `AHEAD` tasks with the cluster."""
    rest = iter(calls)
    under_way = deque(submit(call) for call in itertools.islice(rest, AHEAD))
    failure: Exception | None = None
    while under_way:
        try:
            result = under_way.popleft().result()
        except Exception as error:  # whatever it is, those under way end first
            if failure is not None:
                logger.warning("another shard failed too: %s", " ".join(str(error).split()))
            failure = failure or error
            continue
        if failure is None:
            yield result
            under_way.extend(submit(call) for call in itertools.islice(rest, 1))
    if failure is None:
        return
    # What the cluster says itself, rather than the task.
    if type(failure).__module__.partition(".")[0] in ("ray", "distributed"):
        raise RunFailed(
            f"a worker died with the same shard {_DEATHS_A_SHARD + 1} times; what was done stands:"
            f" {failure}"
        ) from failure
    raise failure


@contextmanager
def _cluster(settings: EngineSettings) -> Iterator[Callable[[Any, dict[str, Any]], Any]]:
    """A function that submits a task with its parameters, while the cluster is there."""
    with ExitStack() as stack:
        start = _ray if settings.kind == "ray" else _dask
        try:
            runner = start(settings, stack)
        except ConfigError:
            raise
        except Exception as error:  # the libraries have no class of their own for this
            where = settings.address or "started on this machine"
            raise RunFailed(f"engine: no {settings.kind} cluster ({where}): {error}") from error
        yield lambda task, call: runner.submit(task, parameters=call)


def _ray(settings: EngineSettings, stack: ExitStack) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if settings.address is None:
        workers, gpus = _shares(settings)
        options |= {
            "include_dashboard": False,
            "num_cpus": workers * settings.cpus,
            "num_gpus": workers * gpus,
        }
    else:
        options["address"] = settings.address
    runner = stack.enter_context(RayTaskRunner(init_kwargs=options))
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = int(max(node.get("GPU", 0) for node in nodes))
    gpus = min(1, most) if settings.gpus is None else settings.gpus
    wanted = {"CPU": settings.cpus, "GPU": gpus}
    if not any(all(node.get(k, 0) >= v for k, v in wanted.items()) for node in nodes):
        raise ConfigError(
            f"engine: no machine of the cluster has {settings.cpus} cores and {gpus} GPUs for a"
            " worker; lower engine.cpus or engine.gpus"
        )
    # By itself Ray ends the process after each task that claims a GPU: the models stay loaded.
    claims = {"num_cpus": settings.cpus, "num_gpus": gpus, "max_calls": 0}
    stack.enter_context(remote_options(**claims, max_retries=_DEATHS_A_SHARD))
    return runner


def _dask(settings: EngineSettings, stack: ExitStack) -> Any:
    import dask
    from prefect_dask import DaskTaskRunner

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    stack.enter_context(
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": _DEATHS_A_SHARD,
                "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": settings.cpus,
            }
        )
    )
    if settings.address is None:
        workers, gpus = _shares(settings)
        cluster = {"workers": workers, "gpus": gpus}
        runner = DaskTaskRunner(cluster_class=_dask_cluster, cluster_kwargs=cluster)
    else:
        gpus = settings.gpus or 0
        runner = DaskTaskRunner(address=settings.address)
    if gpus:
        stack.enter_context(dask.annotate(resources={"GPU": gpus}))
    stack.enter_context(runner)
    there = runner.client.scheduler_info(n_workers=-1)["workers"].values()
    if not any(worker["resources"].get("GPU", 0) >= gpus for worker in there):
        raise ConfigError(
            f"engine: none of the cluster's {len(there)} workers has {gpus} GPUs; start them"
            f" with --resources GPU={gpus}, or lower engine.gpus"
        )
    return runner


def _dask_cluster(workers: int, gpus: int, **_: Any) -> Any:
    """Workers of one thread on this machine, each with GPUs of its own."""
    from distributed import Nanny, Scheduler, SpecCluster

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    devices = visible if visible != [""] else [str(number) for number in range(workers * gpus)]
    quiet = {"silence_logs": logging.CRITICAL, "dashboard": False}
    common = {"nthreads": 1, "memory_limit": 0, "host": "127.0.0.1"} | quiet
    specifications = {}
    for number in range(workers):
        own = ",".join(devices[number * gpus : (number + 1) * gpus])
        options = common | {"resources": {"GPU": gpus}, "env": {"CUDA_VISIBLE_DEVICES": own}}
        specifications[number] = {"cls": Nanny, "options": options}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard": False}}
    return SpecCluster(specifications, scheduler, silence_logs=logging.CRITICAL)


def _shares(settings: EngineSettings) -> tuple[int, int]:
    """How many workers to start on this machine, and how many of its GPUs each gets."""
    if settings.gpus == 0:
        return settings.workers or 1, 0
    import torch

    there = torch.cuda.device_count()
    gpus = min(1, there) if settings.gpus is None else settings.gpus
    workers = settings.workers or (max(1, there // gpus) if gpus else 1)
    if workers * gpus > there:
        raise ConfigError(
            f"engine.gpus: {workers} workers of {gpus} GPUs need {workers * gpus};"
            f" this machine has {there}"
        )
    return workers, gpus
