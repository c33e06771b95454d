"""What the README and the pages show is so: the Python runs, configs load, commands and links exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from pipeline.config.config import make_config
from tests.worlds import scene_rows, write_world

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "flows").glob("*.md"))]


def blocks(language: str, page: str = "README.md") -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_the_python_runs_as_written(tmp_path: Path) -> None:
    (code,) = blocks("python")
    example = '"examples/scenes/dmc.yaml"'
    assert example in code and len(code.strip().splitlines()) <= 11
    # The example itself takes a minute; `make demo` runs it.
    small = write_world(tmp_path, scene_rows(40, 1, 1))
    answer = subprocess.run(
        [sys.executable, "-c", code.replace(example, repr(str(small)))],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert "{'observed': 40, 'completed': 2, 'rejected': 0, 'failed': 0}" in answer.stdout
    assert "status: string" in answer.stdout


def test_the_config_loads_and_what_it_calls_defaults_are_the_defaults() -> None:
    first, *further = (block for page in PAGES for block in blocks("yaml", page))
    shown = yaml.safe_load(first)
    config = make_config(shown)
    required = ("name", "dataset", "external", "encoder", "captioner", "image_generator")
    bare = make_config({name: shown[name] for name in required})
    assert config.model_dump() == bare.model_dump()
    for text in further:
        make_config({**shown, **yaml.safe_load(text)})


COMMANDS = sorted(set(re.findall(r"^    (rag4dmc .*)$", README, re.MULTILINE)))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_and_option_is_there(line: str) -> None:
    for part in line.partition("  #")[0].split("&&"):
        words = shlex.split(part)
        assert words[0] == "rag4dmc"
        answer = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "120"})
        assert answer.exit_code == 0
        for word in words[2:]:
            assert not word.startswith("--") or f" {word} " in answer.stdout


def test_every_command_is_told() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.callback.__name__
        if name not in ("build", "search", "report"):
            assert f"rag4dmc {name}" in README, name


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert ((ROOT / page).parent / link).exists(), link
