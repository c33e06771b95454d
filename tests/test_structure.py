"""The house keeps its arrows: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "kb": {"generators", "selection", "pipeline", "flows", "diffusers", "prefect"},
    "generators": {"kb", "selection", "pipeline", "flows", "faiss", "prefect"},
    "selection": {"kb", "generators", "pipeline", "flows", "torch", "prefect"},
    "pipeline": {"flows", "prefect"},
}
HEAVY = {
    *("torch", "diffusers", "transformers", "faiss", "open_clip", "prefect", "sklearn", "scipy"),
    *("numpy", "pyarrow", "pydantic", "PIL", "pipeline", "kb", "generators", "selection"),
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_nothing_that_the_design_forbids(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    for module in modules:
        assert not imports(module) & FORBIDDEN[package], module


def test_help_answers_without_loading_a_model_library() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from flows.cli import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        f"print(sorted(set(sys.modules) & {HEAVY!r}))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
