"""What Prefect's server knows of the tasks that ran."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

PATIENCE = 120.0


def settled_task_runs(prefix: str, count: int = 1, since: datetime | None = None) -> list[Any]:
    """The task runs of such a name that were made since, once there are so many, all ended.

    What a task did reaches the server as events, some time after the flow that ran it has ended.
    """
    from prefect import get_client

    async def read() -> list[Any]:
        async with get_client() as client:
            return await client.read_task_runs()

    deadline = time.monotonic() + PATIENCE
    while True:
        runs = [
            run
            for run in asyncio.run(read())
            if run.name.startswith(prefix) and (since is None or run.expected_start_time >= since)
        ]
        if len(runs) >= count and all(
            run.state is not None and run.state.is_final() for run in runs
        ):
            return runs
        assert time.monotonic() < deadline, f"not ended: {runs}"
        time.sleep(0.5)
