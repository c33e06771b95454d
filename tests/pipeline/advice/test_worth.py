"""Before a run inspect says what its check takes; after it, whether it pays."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from flows.cli import app
from tests import quick_worlds
from tests.pipeline.check.checked import PAIRS, world


def inspected(path: Path, *options: str) -> str:
    answer = CliRunner().invoke(app, ["inspect", str(path), *options])
    assert answer.exit_code == 0, answer.output
    return str(answer.stdout)


def test_inspect_says_what_a_check_takes_and_then_whether_it_pays(tmp_path: Path) -> None:
    path = world(tmp_path)
    before = inspected(path)
    assert f"check would complete {PAIRS} for images and {PAIRS} for texts" in before
    assert "by the check" not in before
    calls = json.loads(inspected(path, "--json"))["calls"]
    assert calls["captions"] == [2 * (20 + PAIRS), 4 * (20 + PAIRS)]
    _, summary = quick_worlds.run(path)
    after = inspected(path)
    assert "check would complete" not in after
    for half in ("text", "image"):
        verdict = summary["check"][half]["verdict"]
        assert f"worth, by the check: {verdict}" in after
        assert f"{half}s: {summary['check'][half]['way']['mean']:.2f} ±" in verdict
    answer = json.loads(inspected(path, "--json"))
    assert answer["check"]["found"]["text"]["verdict"] == summary["check"]["text"]["verdict"]
    assert answer["calls"]["captions"] == [0, 0]


def test_a_check_that_is_off_has_no_verdict_and_no_place_in_the_report(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(40, 4, 4))
    config = quick_worlds.config(tmp_path)
    job, summary = quick_worlds.run(config)
    assert summary["check"]["text"]["off"]
    assert 'id="check"' not in (job.folder / "report" / "index.html").read_text()
    told = CliRunner().invoke(app, ["inspect", str(config)]).output
    assert "by the check" not in told
