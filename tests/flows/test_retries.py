"""What a task tries again after: I/O and a server's own trouble, never bad data. By count."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from generators.base import Generated
from pipeline.storage.errors import ConfigError
from tests import quick_worlds as worlds
from tests.quick_parts import QuickCaptioner
from tests.task_runs import settled_task_runs

ERRORS = {
    "io": lambda: OSError(errno.EIO, "the disk stumbled"),
    "server": lambda: reply_of(503),
    "settings": lambda: ConfigError("captioner.prompt: must hold {text}"),
    "full": lambda: OSError(errno.ENOSPC, "no space left on device"),
}


def reply_of(status: int) -> httpx.HTTPStatusError:
    """What httpx raises for a status."""
    request = httpx.Request("GET", "http://127.0.0.1/")
    try:
        httpx.Response(status, request=request).raise_for_status()
    except httpx.HTTPStatusError as error:
        return error
    raise AssertionError


class StumblingCaptioner(QuickCaptioner):
    """Raises an error of a kind the first time it is asked in a shard, whatever process asks."""

    class Settings(QuickCaptioner.Settings):
        error: str
        calls: str

    settings: Settings

    def generate(self, requests: Sequence[Any]) -> list[Generated]:
        path = Path(self.settings.calls)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        if len(path.read_text(encoding="utf-8").splitlines()) == 1:
            raise ERRORS[self.settings.error]()
        return super().generate(requests)


def attempts(tmp_path: Path, error: str) -> tuple[int, int, BaseException | None]:
    """Calls of the captioner, attempts that the server counted, and what the run ended with."""
    from flows.run import run_flow

    worlds.write(tmp_path / "data" / "a.parquet", worlds.rows(40, 4, 0))
    kind = "tests.flows.test_retries:StumblingCaptioner"
    captioner = {"kind": kind, "error": error, "calls": str(tmp_path / "calls")}
    config = worlds.config(tmp_path, captioner=captioner)
    failure: BaseException | None = None
    started = datetime.now(UTC)
    try:
        run_flow(str(config))
    except Exception as raised:
        failure = raised

    (run,) = settled_task_runs("shard-000006", since=started)
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    return len(calls), run.run_count, failure


@pytest.mark.slow
@pytest.mark.parametrize("error", ["io", "server"])
def test_a_shard_is_tried_again_after_what_may_pass(
    server: None, tmp_path: Path, error: str
) -> None:
    assert attempts(tmp_path, error) == (2, 2, None)


@pytest.mark.slow
@pytest.mark.parametrize("error", ["settings", "full"])
def test_a_shard_is_tried_once_with_what_stays(server: None, tmp_path: Path, error: str) -> None:
    calls, counted, failure = attempts(tmp_path, error)
    assert (calls, counted) == (1, 1)
    # A full disk is told with the file that was being written.
    assert str(ERRORS[error]()).lower() in str(failure).lower()
