"""Runs in process groups of their own that are killed where a test says.

A server imports everything once and forks for each run, so that a restart costs no more than the
run. Where a run kills itself is found by Python's audit events (files opened, renamed, removed), so
that the code under test knows nothing of it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.calls import LOG

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Point:
    """A moment: the nth time that `event` comes to a path that matches `path`.

    Events are those of `sys.audit` ("open" counts for writing only; "os.rename" comes before it is
    done, and counts by where it leads), or "rows written" and "index written", right after the
    library has written them. `tear` is a pattern of the one file beside the path that loses its last three bytes.
    """

    event: str
    path: str
    nth: int = 1
    tear: str | None = None


class Runs:
    """The client of the server; a context manager."""

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.killing"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(60)

    def start(self, config: Path, point: Point | None = None) -> int:
        """Start a run; the id of its process group. Its output goes to `output.txt` beside."""
        return int(
            self._ask({"start": str(config), "point": None if point is None else asdict(point)})
        )

    def wait(self, group: int) -> int:
        """Wait for a run; its exit status, negative for a signal."""
        return int(self._ask({"wait": group}))

    def run(self, config: Path, point: Point | None = None) -> int:
        return self.wait(self.start(config, point))

    def kill(self, group: int) -> int:
        """SIGKILL to the whole group; the exit status."""
        os.killpg(group, signal.SIGKILL)
        return self.wait(group)

    def _ask(self, request: dict[str, Any]) -> str:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the server is gone"
        return answer


def _serve() -> None:
    import faiss  # noqa: F401
    import sklearn.cluster  # noqa: F401
    import torch

    import pipeline.report.run  # noqa: F401
    import tests.quick_worlds  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = os.fork()
            if pid == 0:
                _child(Path(request["start"]), request["point"])
            answer = pid
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        print(answer, flush=True)


def _child(config: Path, point: dict[str, Any] | None) -> None:
    status = 1
    os.setsid()
    out = os.open(config.parent / "output.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, out), (2, out)):
        os.dup2(source, target)
    try:
        from tests.quick_worlds import run

        os.environ[LOG] = str(config.parent)
        if point is not None:
            _arm(Point(**point))
        run(config)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _arm(point: Point) -> None:
    """Have this process group killed at a point."""
    pattern = re.compile(point.path)
    seen = 0

    def reached(event: str, path: str) -> None:
        nonlocal seen
        if event == point.event and pattern.search(path):
            seen += 1
            if seen == point.nth:
                if point.tear:
                    (torn,) = Path(path).parent.glob(point.tear)
                    os.truncate(torn, torn.stat().st_size - 3)
                os.killpg(0, signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], (str, os.PathLike)):
            if (args[1] or "").strip("rbt") or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
                reached(event, os.fspath(args[0]))
        elif event == "os.rename":
            reached(event, os.fspath(args[1]))
        elif event == "os.remove":
            reached(event, os.fspath(args[0]))

    sys.addaudithook(hook)

    import faiss
    import pyarrow.parquet as pq

    write_table, write_index = pq.ParquetWriter.write_table, faiss.write_index

    def rows_written(self: Any, table: Any, *args: Any, **options: Any) -> None:
        write_table(self, table, *args, **options)
        reached("rows written", str(self.where))

    def index_written(index: Any, path: str) -> None:
        write_index(index, path)
        os.truncate(path, os.path.getsize(path) // 2)
        reached("index written", path)

    pq.ParquetWriter.write_table = rows_written
    if point.event == "index written":
        faiss.write_index = index_written


if __name__ == "__main__":
    _serve()
