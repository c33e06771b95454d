"""A run on a schedule, served from this process.

Without a Prefect server that stands, one is started on this machine for the time: the temporary one
that Prefect starts by itself keeps no schedules.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_URL

from flows.run import run_flow
from pipeline.storage.errors import ConfigError, RunFailed

START_SECONDS = 180.0


def serve(name: str, config: Path, cron: str) -> None:
    """Stay, and start a run whenever the schedule says so.

    Parameters
    ----------
    name
        Of the run; the deployment's is `rag4dmc-NAME`.
    config
        Path of the config, absolute: a run has a process of its own.
    cron
        Five fields, in UTC.

    Raises
    ------
    ConfigError
        The schedule is no cron line.
    """
    try:
        CronSchedule(cron=cron)
    except ValueError:
        raise ConfigError(f"--cron: must be a cron line of five fields; got {cron!r}") from None
    with ExitStack() as stack:
        url = PREFECT_API_URL.value()
        if url is None:
            url = stack.enter_context(standing_server())
            # For the processes of the runs, and for every thread of this one.
            os.environ[PREFECT_API_URL.name] = url
            # What a run says stands on its page.
            os.environ["PREFECT_LOGGING_LEVEL"] = "INFO"
            refresh_global_settings_context()
        print(f"serving {name}: {cron} (UTC), Prefect server {url}; stop with Ctrl-C", flush=True)
        run_flow.serve(
            name=f"rag4dmc-{name}",
            cron=cron,
            parameters={"config": str(config)},
            print_starting_message=False,
            limit=1,
            # A run that is due while another is under way would find nothing left to do.
            global_limit=ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
            ),
        )


@contextmanager
def standing_server() -> Iterator[str]:
    """A Prefect server on this machine alone, with its schedules; the URL of its API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["server", "start", "--host", "127.0.0.1", "--port", str(port), "--analytics-off"]
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", *words],
        env=os.environ | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        _wait_for(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RunFailed(f"the Prefect server did not start within {START_SECONDS:.0f} s")
