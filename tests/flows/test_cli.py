"""The command line by itself: its help, and what a shell completes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tests import quick_worlds

COMMANDS = [command.callback.__name__ for command in app.registered_commands]
ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("rag4dmc")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_examples_that_name_it(command: str) -> None:
    answer = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "100"})
    assert answer.exit_code == 0
    examples = answer.stdout.partition("Examples:")[2].partition("╭")[0].strip().splitlines()
    assert examples
    for example in examples:
        words = shlex.split(example, comments=True)
        assert words[:2] == ["rag4dmc", command]


def test_the_examples_name_options_that_there_are() -> None:
    for command in app.registered_commands:
        answer = CliRunner().invoke(app, [command.callback.__name__, "--help"])
        examples, _, table = answer.stdout.partition("Examples:")[2].partition("╭")
        for word in shlex.split(examples, comments=True):
            assert not word.startswith("-") or f" {word} " in table


def completed(shell: str, *words: str) -> set[str]:
    """What the completion of a shell is answered for the last word."""
    line = " ".join(["rag4dmc", *words])
    asked = {
        "_RAG4DMC_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": words[-1],
    }
    answer = subprocess.run(
        [SCRIPT], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    return set(answer.stdout.split())


@pytest.mark.parametrize(
    "shell", ["bash", *(pytest.param(name, marks=pytest.mark.slow) for name in ("zsh", "fish"))]
)
def test_commands_and_choices_are_completed(shell: str) -> None:
    commands = " ".join(completed(shell, "re"))
    assert "report" in commands and "review" in commands and "export" not in commands
    formats = " ".join(completed(shell, "export", "--format", "p"))
    assert "parquet" in formats and "llava" not in formats
    assert "--min-score" in " ".join(completed(shell, "export", "--m"))


def test_a_real_bash_completes() -> None:
    # The shell is found by its process, so that a bash must wait for the answer.
    script = subprocess.run(
        ["bash", "-c", f"{SCRIPT} --show-completion; exit $?"], capture_output=True, text=True
    ).stdout
    asked = (
        f"{script}\nCOMP_WORDS=(rag4dmc exp); COMP_CWORD=1; _rag4dmc_completion rag4dmc\n"
        'echo "${COMPREPLY[@]}"'
    )
    path = f"{SCRIPT.parent}:{os.environ['PATH']}"
    answer = subprocess.run(
        ["bash", "-c", asked], env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert answer.stdout.split() == ["export"]


@pytest.mark.parametrize("home", ["/proc/nonexistent"])
@pytest.mark.slow
def test_a_run_needs_no_home_that_can_be_written(tmp_path: Path, home: str) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(34, 2, 2))
    config = quick_worlds.config(tmp_path)
    (tmp_path / "tmp").mkdir()
    kept = {n: v for n, v in os.environ.items() if n not in ("PREFECT_HOME", "XDG_CACHE_HOME")}
    own = {"HOME": home, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [SCRIPT, "run", config], env=kept | own, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "38 rows: 34 observed, 4 completed" in answer.stdout
    assert not list((tmp_path / "tmp").glob("rag4dmc*"))
