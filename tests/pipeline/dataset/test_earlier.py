"""Who gives a completed dataset to another run is told which of its halves a model made."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.job import Job
from tests import quick_worlds

SAID = (
    "5 rows have a half that an earlier run generated ('status' is completed), which counts as real"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("first")
    quick_worlds.write(folder / "data" / "a.parquet", quick_worlds.rows(34, 3, 2))
    formats = ("parquet", "webdataset", "imagefolder", "llava", "open_clip")
    exports = [{"format": name} for name in formats]
    exports.append({"format": "parquet", "name": "real", "only": "observed"})
    return quick_worlds.run(quick_worlds.config(folder, export=exports))[0]


@pytest.mark.parametrize(
    "export", ["parquet", "webdataset", "imagefolder", "llava", "open_clip", "real"]
)
def test_init_tells_of_generated_halves_in_every_layout(
    finished: Job, tmp_path: Path, export: str
) -> None:
    words = ["init", str(finished.folder / "exports" / export), "-o", str(tmp_path / "c.yaml")]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    assert (SAID in " ".join(answer.output.split())) == (export != "real")


def test_inspect_and_a_run_tell_of_those_of_an_external_set(finished: Job, tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(34, 3, 2))
    place = str(finished.folder / "exports" / "webdataset")
    config = quick_worlds.config(tmp_path, external=[{"name": "ours", "path": place}])
    for _ in range(2):
        _, summary = quick_worlds.run(config)
        assert any(f"external ours: {SAID}" in line for line in summary["warnings"])
    answer = CliRunner().invoke(app, ["inspect", "--json", str(config)])
    assert f"external ours: {SAID}" in answer.output
