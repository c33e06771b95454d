"""Files of a run's folder are there whole or not at all, and leave no debris."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.report import write_report
from pipeline.storage.files import clear_scratch, read_json, write_whole, writing_whole
from tests.pipeline.report.report_rows import SUMMARY, rows


def test_a_block_that_breaks_off_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, '{"a": 1}')
    with pytest.raises(KeyboardInterrupt), writing_whole(path) as scratch:
        scratch.write_text("half of")
        raise KeyboardInterrupt
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_that_write_one_file_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    with writing_whole(path) as scratch:
        scratch.write_text("the slow one's")
        code = "import sys, pathlib; from pipeline.storage.files import write_whole;"
        code += "write_whole(pathlib.Path(sys.argv[1]), 'the quick one')"
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
        assert path.read_text() == "the quick one"
    assert path.read_text() == "the slow one's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_files_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left.*a.json"), writing_whole(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_report_that_was_killed_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "report" / "index.html"
    write_report(path, rows(3), SUMMARY)
    code = (
        "import os, signal, sys, pathlib; from pipeline.report import write_report;"
        "from tests.pipeline.report.report_rows import SUMMARY, rows;"
        "kill = lambda event, args: event == 'os.rename' and os.kill(os.getpid(), signal.SIGKILL);"
        "sys.addaudithook(kill); write_report(pathlib.Path(sys.argv[1]), rows(3), SUMMARY)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert len(list(path.parent.iterdir())) == 2
    clear_scratch(tmp_path)
    assert list(path.parent.iterdir()) == [path]
