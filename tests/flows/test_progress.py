"""What a person sees of a run: on a real terminal, and in a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from flows.progress import gpu_memory
from tests.worlds import scene_rows, write_world

SCRIPT = """
import logging, sys, time
from flows.pace import Pace
from flows.progress import RunView
logging.basicConfig(format="%(levelname)s: %(message)s")
with RunView() as view:
    for done in range(0, 401, 100):
        view.step("scan internal", done, 0)
    view.step("scan internal", 400, 400)
    view.step("scan internal", 400, 400)
    logging.getLogger("x").warning("a row has two ids")
    pace = Pace()
    view.step("complete texts", 0, 30, "", pace)
    for done in range(2, 31, 2):
        time.sleep(0.1)
        pace.add(2)
        view.step("complete texts", done, 30, f"{done} completed", pace)
print("done")
"""


def screen(output: str) -> list[str]:
    """The lines that stand on a terminal after it was sent this."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", output):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.startswith("\x1b["):
            if part[-1] == "A":
                row = max(0, row - int(part[2:-1] or 1))
            elif part == "\x1b[2K":
                lines[row] = ""
        else:
            lines[row] = lines[row][:column].ljust(column) + part
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


def on_a_terminal(command: Sequence[object]) -> list[str]:
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    process = subprocess.Popen(
        [str(word) for word in command], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    sent = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        sent += part
    os.close(master)
    assert process.wait() == 0
    return screen(sent.decode())


def in_a_pipe(command: Sequence[object]) -> tuple[list[str], list[str]]:
    answer = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=True
    )
    return answer.stdout.splitlines(), answer.stderr.splitlines()


def test_a_terminal_keeps_one_line_of_each_step_and_no_bar() -> None:
    shown = on_a_terminal([sys.executable, "-c", SCRIPT])
    assert shown[0] == "scan internal: 400 of 400"
    assert shown[1] == "WARNING: a row has two ids"
    assert re.fullmatch(
        r"complete texts: 30 of 30 \([\d.]+ a second, \d s; 30 completed\)", shown[2]
    )
    assert shown[3:] == ["done"]


def test_a_pipe_gets_plain_lines_once() -> None:
    out, shown = in_a_pipe([sys.executable, "-c", SCRIPT])
    assert out == ["done"]
    assert shown[:2] == ["scan internal: 400 of 400", "WARNING: a row has two ids"]
    assert len(shown) == 3 and shown[2].startswith("complete texts: 30 of 30 (")
    assert not any("\x1b" in line or "\r" in line for line in shown)


def test_a_load_is_told_at_its_start_and_while_it_lasts_where_nobody_sees_a_bar() -> None:
    script = (
        "import time; import flows.progress as p; from pipeline.models.loading import Loading\n"
        "p.LINE_SECONDS = 0.5\n"
        "with p.RunView() as view, Loading(view.step).of('captioner X, 15.0 GB'): time.sleep(4)"
    )
    _, shown = in_a_pipe([sys.executable, "-c", script])
    assert len(shown) >= 3
    assert all(re.fullmatch(r"load captioner X, 15.0 GB(: \d s| …)", line) for line in shown)


def test_rate_and_time_left_are_told_while_it_lasts() -> None:
    script = SCRIPT.replace("import RunView", "import RunView; import flows.progress as p")
    script = script.replace("with RunView", "p.LINE_SECONDS = 0.3\nwith RunView")
    _, shown = in_a_pipe([sys.executable, "-c", script])
    told = [line for line in shown if " left" in line]
    assert told and all(
        re.fullmatch(
            r"complete texts: \d+ of 30 \([\d.]+ a second, \d+ s left; \d+ completed\)", line
        )
        for line in told
    )


def test_a_command_shows_each_step_once_on_a_terminal(tmp_path: Path) -> None:
    config = write_world(tmp_path, scene_rows(4, 1, 1))
    shown = on_a_terminal([Path(sys.executable).with_name("rag4dmc"), "inspect", config])
    assert len([line for line in shown if line.startswith("scan internal")]) == 1
    assert "6 rows in 1 file" in shown
    assert len(set(shown)) == len(shown)


def test_gpu_memory_is_told_of_gpus_in_use_alone() -> None:
    import torch

    if not torch.cuda.is_available():
        assert gpu_memory() == ""
        return
    torch.zeros(1, device="cuda")
    assert re.fullmatch(r"GPU [\d.]+ of \d+ GB(, [\d.]+ of \d+ GB)*", gpu_memory())


def test_an_interrupted_command_ends_in_one_line(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; import pipeline.dataset.catalog as catalog; from flows.cli import main;"
        # Where the tests run in the background, an interrupt would be ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "catalog.Catalog.scan = lambda *_: os.kill(os.getpid(), signal.SIGINT);"
        f"sys.argv = ['rag4dmc', 'inspect', {str(write_world(tmp_path, scene_rows(2, 1, 0)))!r}];"
        "main()"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert answer.returncode == 130
    assert answer.stderr.splitlines() == [
        "rag4dmc: interrupted; what was done stands, and the same command goes on from there"
    ]
