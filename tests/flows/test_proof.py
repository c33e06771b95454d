"""The commands evaluate and tune: what they print, what they write, and how they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.config.config import load_config
from tests import quick_worlds


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proof")
    quick_worlds.write(folder / "data" / "a.parquet", quick_worlds.rows(40, 0, 0))
    return quick_worlds.config(
        folder, evaluation={"rates": [0.5], "downstream": None, "duplicate_cosine": 2.0}
    )


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_evaluate_prints_tables_and_writes_figures_and_page(place: Path) -> None:
    done = invoke("evaluate", place, "--variants", "vanilla", "--sweep", "n=1")
    assert done.exit_code == 0, done.output
    for text in ("Generated beside hidden, 50% missing", "vanilla n=1", "Retrieval, 50% missing"):
        assert text in done.output
    folder = place.parent / "runs" / "quick" / "evaluation"
    assert (folder / "results.parquet").is_file()
    for text in (done.output, (folder / "results.md").read_text()):
        assert "judged by the encoder that selected them, which flatters" in " ".join(text.split())
    assert "<title>quick · evaluation</title>" in (folder / "index.html").read_text()


def test_evaluate_answers_a_program(place: Path) -> None:
    done = invoke("evaluate", place, "--variants", "vanilla", "--rates", "0.3", "--json")
    answer = json.loads(done.stdout)
    assert {record["rate"] for record in answer["records"]} == {0.3}
    assert answer["facts"]["train"] == 32
    assert len(answer["warnings"]) == 1
    assert Path(answer["page"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "rag"], "--variants: must be among"),
        (["--rates", "0.3,high"], "--rates: must be numbers by comma; got '0.3,high'"),
        (["--rates", "1.5"], "--rates: must lie between 0 and 1; got '1.5'"),
        (["--sweep", "k"], "--sweep: must be key=a,b,c; got 'k'"),
        (["--sweep", "k=1"], "--sweep: no such setting: 'k'"),
        (["--sweep", "n=[1"], "--sweep: '[1' is no value"),
        (["--sweep", "n=1,0"], "--sweep: generation.n: "),
        (["--variants", "drop", "--sweep", "n=1"], "--sweep: needs a variant that generates"),
    ],
)
def test_evaluate_refuses_in_one_line(place: Path, arguments: list[str], message: str) -> None:
    done = invoke("evaluate", place, *arguments)
    assert done.exit_code == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("rag4dmc:")]
    assert len(errors) == 1 and message in errors[0]


@pytest.fixture
def misled(tmp_path: Path) -> Path:
    """A config whose α = 1 looks at nothing but what misleads."""
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(100, 0, 0))
    place = quick_worlds.config(
        tmp_path,
        encoder={"kind": "tests.quick_parts:CloudedEncoder"},
        knowledge_base=quick_worlds.UNDECIDED,
    )
    text = place.read_text().replace(
        "  mapping:\n",
        "  retrieval: {mode: fusion, k: 10, alpha: 1.0}  # to begin with\n  mapping:\n",
    )
    place.write_text(text)
    assert load_config(place).knowledge_base.retrieval.alpha == 1
    return place


def test_tune_writes_a_sure_gain_and_finds_no_second_one(misled: Path) -> None:
    done = invoke("tune", misled, "--share", "0.6", "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    trial = answer["trials"][0]
    assert answer["written"] and trial["gain"]["mean"] > 2 * trial["gain"]["half"] > 0
    alpha = load_config(misled).knowledge_base.retrieval.alpha
    assert alpha == answer["changes"]["knowledge_base.retrieval.alpha"] < 1
    line = next(line for line in misled.read_text().splitlines() if "retrieval:" in line)
    assert f"alpha: {alpha}" in line
    assert "# to begin with; k tuned, cosine of the example's half to the hidden one: +" in line
    assert "; alpha tuned, cosine of" in line

    before = misled.read_text()
    again = json.loads(invoke("tune", misled, "--share", "0.6", "--json").stdout)
    assert again["changes"] == {} and again["written"] is False
    assert misled.read_text() == before


def test_tune_does_not_let_the_encoder_that_selects_judge_itself(misled: Path) -> None:
    done = invoke("tune", misled, "--share", "0.6", "--dry-run")
    assert "selection.*.lambda2: not tried, for the encoder that selects would judge" in done.stdout
    assert "caption.lambda2" not in done.stdout


def test_tune_says_what_it_found_and_a_dry_run_leaves_the_config(place: Path) -> None:
    before = place.read_text()
    done = invoke("tune", place, "--share", "0.5", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "20 of 40 complete pairs hidden: half chose, half confirmed" in done.output
    assert "knowledge_base.retrieval.alpha: " in done.output
    assert "config left as it is" in done.output
    assert place.read_text() == before
    few = invoke("tune", place, "--share", "0.1")
    assert few.exit_code == 2 and "tune: needs 20 pairs to hide" in few.stderr
