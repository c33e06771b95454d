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
# Rooms of `pipeline/`, lowest first: each imports only what stands before it.
FLOORS = (
    *(
        "storage",
        "dataset",
        "models",
        "ledger",
        "export",
        "config",
        "knowledge",
        "completion",
        "check",
    ),
    *("job", "report", "advice", "evaluation"),
)
LONGEST = 300
HEAVY = {
    *("torch", "diffusers", "transformers", "faiss", "open_clip", "prefect", "sklearn", "scipy"),
    *("numpy", "pyarrow", "pydantic", "PIL", "pipeline", "kb", "generators", "selection"),
}


def imported(path: Path) -> set[str]:
    """Dotted names of all that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def imports(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_nothing_that_the_design_forbids(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    for module in modules:
        assert not imports(module) & FORBIDDEN[package], module


def test_a_folder_of_pipeline_imports_only_folders_below_it() -> None:
    for name, path in modules("pipeline").items():
        if name == "pipeline":
            continue
        floor = FLOORS.index(name.split(".")[1])
        for other in imported(path):
            if other.startswith("pipeline."):
                assert FLOORS.index(other.split(".")[1]) <= floor, f"{name} imports {other}"


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_modules_import_one_another_in_a_circle(package: str) -> None:
    paths = modules(package)
    # `from package.module import Name` is an import of the module, not of a module `Name`.
    ends = {
        name: {other if other in paths else other.rpartition(".")[0] for other in imported(path)}
        & paths.keys() - {name}
        for name, path in paths.items()
    }
    while lowest := {name for name, others in ends.items() if not others}:
        ends = {name: others - lowest for name, others in ends.items() if name not in lowest}
    assert not ends, f"a circle among {sorted(ends)}"


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for folder in (*FORBIDDEN, "flows", "examples", "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {str(path) for path, lines in lengths.items() if lines > LONGEST} == set()


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
