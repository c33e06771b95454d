"""What is said of a run beforehand is what the run then does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from pipeline.advice.estimate import estimate
from pipeline.config.config import load_config
from pipeline.job import Job
from pipeline.storage.errors import ConfigError
from tests.worlds import CHECKPOINTS, scene_rows, settings, write_world

CAPTIONER = {"kind": "tests.quick_parts:QuickCaptioner"}
ROWS = (34, 3, 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), scene_rows(*ROWS), captioner=CAPTIONER)


@pytest.fixture(scope="module")
def before(world: Path) -> dict[str, Any]:
    return estimate(load_config(world))


@pytest.fixture(scope="module")
def summary(world: Path, before: dict[str, Any]) -> dict[str, Any]:
    job = Job(load_config(world))
    with job.lock():
        job.begin()
        job.build()
        return dict(job.complete())


def test_it_counts_the_rows_and_the_calls_that_a_run_makes(
    before: dict[str, Any], summary: dict[str, Any]
) -> None:
    assert before["counts"] == {"complete": 34, "text": 3, "image": 1, "both": 0}
    assert before["pending"] == {"none": 34, "text": 3, "image": 1}
    assert sum(before["pending"].values()) == summary["done_now"]
    assert before["calls"]["captions"] == [6, 12]
    assert before["calls"]["images"] == [2, 4]
    assert before["calls"]["images_embedded"][0] == 3 + 2
    assert before["external"] == {"fluent-flat": None}
    assert before["shards"] == 5 + 1 + 1


def test_the_size_of_what_comes_out_is_near(
    before: dict[str, Any], summary: dict[str, Any]
) -> None:
    parts = Path(summary["completed"]).glob("part-*.parquet")
    # Columns of a file take some kilobytes, whatever is in them.
    written = sum(path.stat().st_size - 5000 for path in parts)
    assert 0.4 * written < before["disk"]["completed"] < 2.5 * written
    assert before["disk"]["free"] > 0


def test_after_the_run_nothing_is_left_to_do(world: Path, summary: dict[str, Any]) -> None:
    after = estimate(load_config(world))
    assert (after["done"], after["shards"]) == (38, 0)
    assert set(after["pending"].values()) == {0}
    assert after["external"]["fluent-flat"] > 100


def test_changed_settings_are_named_with_the_rows_that_they_touch(
    world: Path, summary: dict[str, Any], tmp_path: Path
) -> None:
    values = settings(
        captioner=CAPTIONER | {"style": "bold"}, output=str(world.parent / "runs/small")
    )
    other = world.with_name("other.yaml")
    other.write_text(yaml.safe_dump(values), encoding="utf-8")
    answer = CliRunner().invoke(app, ["inspect", str(other)])
    assert answer.exit_code == 0
    assert "a run would complete 3 texts (6 to 12 captions drawn) and 0 images" in answer.stdout
    assert "rows to do: 3 settings changed" in answer.stdout
    assert "settings that changed: 3 captioner" in answer.stdout


def test_row_groups_that_are_slow_to_look_rows_up_in_are_told(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert estimate(load_config(world))["advice"] == []
    monkeypatch.setattr("pipeline.dataset.forms.parquet._LARGE_GROUP", 10_000)
    answer = CliRunner().invoke(app, ["inspect", str(world)])
    assert answer.exit_code == 0
    (told,) = (line for line in answer.stderr.splitlines() if "rows.parquet" in line)
    assert told.startswith(f"rag4dmc: {world.parent}/rows.parquet has a row group of ")
    assert "row_group_size=1000" in told


def test_a_model_that_is_not_here_is_named_and_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    captioner = {"kind": "blip2", "model": "Salesforce/blip2-opt-2.7b"}
    config = write_world(tmp_path, scene_rows(2, 1, 0), captioner=captioner)
    answer = CliRunner().invoke(app, ["inspect", str(config)])
    assert answer.exit_code == 0, answer.output
    assert "to download: Salesforce/blip2-opt-2.7b (captioner), size not known" in answer.stdout
    told = json.loads(CliRunner().invoke(app, ["inspect", str(config), "--json"]).stdout)
    assert [model["here"] for model in told["models"]] == [True, False, True]
    assert told["pending"] == {"none": 2, "text": 1, "image": 0} and told["done"] is None
    with pytest.raises(ConfigError, match="blip2-opt-2.7b is not on this machine; first: rag4dmc"):
        estimate(load_config(config), time=True)


@pytest.mark.slow
def test_the_time_is_measured_on_real_rows_with_the_real_models(tmp_path: Path) -> None:
    generator = {"kind": "sdxl", "model": str(CHECKPOINTS / "sdxl"), "steps": 4, "batch_size": 2}
    config = write_world(tmp_path, scene_rows(12, 2, 2), image_generator=generator)
    answer = CliRunner().invoke(app, ["inspect", str(config), "--time", "--json"])
    assert answer.exit_code == 0, answer.output
    time = json.loads(answer.stdout)["time"]
    assert time["rows"] == {"image": 3, "text": 24}
    for fast, slow in time["seconds_a_row"].values():
        assert 0 < fast <= slow
    least, most = time["seconds"]
    assert sum(2 * fast for fast, _ in time["seconds_a_row"].values()) < least < most
    text = CliRunner().invoke(app, ["inspect", str(config), "--time"]).stdout
    assert "s a row (measured on 24)" in text
