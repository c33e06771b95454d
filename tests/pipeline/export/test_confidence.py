"""What is generated may be left out by confidence, and the card says how good it is."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.config.config import load_config
from pipeline.export.export import export
from pipeline.export.settings import ExportSettings
from pipeline.job import Job
from pipeline.report.presentation import export_run
from tests import quick_worlds
from tests.pipeline.check.checked import world


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A run with a check, whose texts are more or less sure."""
    path = world(tmp_path_factory.mktemp("exported"))
    quick_worlds.run(path)
    return Job(load_config(path))


def confidences(job: Job, half: str) -> dict[str, float]:
    rows = quick_worlds.completed(job).items()
    return {i: r["completion"]["confidence"] for i, r in rows if r["missing"] == half}


def exported(folder: Path) -> set[str]:
    return set(ds.dataset(folder / "data").to_table(columns=["id"])["id"].to_pylist())


def test_the_least_sure_texts_are_left_out_and_nothing_else(job: Job, tmp_path: Path) -> None:
    texts = confidences(job, "text")
    cut = sorted(set(texts.values()))[1]
    done = export_run(job, ExportSettings(min_confidence={"text": cut}), tmp_path / "out")
    low = {row_id for row_id, value in texts.items() if value < cut}
    assert low and done.left_out["below the confidence"] == len(low)
    assert exported(tmp_path / "out") == quick_worlds.completed(job).keys() - low
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{len(low)} below the confidence" in card
    assert "of the completed texts those with a confidence of" in card


def test_files_are_taken_over_while_the_cut_stays(job: Job, tmp_path: Path) -> None:
    cut = sorted(set(confidences(job, "text").values()))[1]
    settings = ExportSettings(min_confidence={"text": cut}, best={"image": 0.5}, shard_rows=50)
    first = export_run(job, settings, tmp_path / "out")
    again = export_run(job, settings, tmp_path / "out")
    assert first.written and again.written == 0 and again.rows == first.rows
    other = export_run(
        job, settings.model_copy(update={"min_confidence": {"text": cut / 2}}), tmp_path / "out"
    )
    assert other.written and other.rows > first.rows


def test_rows_without_a_confidence_are_below_every_cut(
    completed: ds.Dataset, tmp_path: Path
) -> None:
    done = export(completed, tmp_path / "out", ExportSettings(min_confidence={"image": -1}))
    images = completed.filter(ds.field("missing") == "image").to_table(columns=["status"])
    made = images["status"].to_pylist().count("completed")
    assert done.left_out["below the confidence"] == made


def test_the_card_has_the_check_s_figures_and_says_what_confidence_is(
    job: Job, tmp_path: Path
) -> None:
    export_run(job, ExportSettings(), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for half, found in job.check.figures().items():
        assert f"| {half} | {found['generated']} | {found['similarity']['mean']:.3f}" in card
    assert "`completion.gain_probability`" in card and "of random halves" in card


def test_a_card_without_a_check_says_that_nothing_was_measured(
    completed: ds.Dataset, tmp_path: Path
) -> None:
    export(completed, tmp_path / "out", ExportSettings())
    assert "It was not measured" in (tmp_path / "out" / "README.md").read_text()


def test_the_command_takes_a_least_confidence(job: Job) -> None:
    config = str(job.config.base / "dmc.yaml")
    cut = sorted(set(confidences(job, "text").values()))[1]
    answer = CliRunner().invoke(app, ["export", config, "--min-confidence", f"text={cut}"])
    assert answer.exit_code == 0, answer.output
    assert "below the confidence" in answer.stdout
    wrong = CliRunner().invoke(app, ["export", config, "--min-confidence", "text=7"])
    assert wrong.exit_code == 2 and "min_confidence" in wrong.output
    parts = (job.folder / "exports/parquet/data").glob("*.parquet")
    assert sum(pq.read_metadata(part).num_rows for part in parts) > 0
