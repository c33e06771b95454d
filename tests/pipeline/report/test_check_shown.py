"""What a run's check found stands in the report, with pairs to look at, and its cards can be had by doubt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.config.config import load_config
from pipeline.job import Job
from pipeline.report.check import shown_check
from tests import quick_worlds
from tests.pipeline.check.checked import checked, data, world


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    path = world(tmp_path_factory.mktemp("shown"))
    quick_worlds.run(path)
    return Job(load_config(path))


def page(job: Job) -> str:
    return (job.folder / "report/index.html").read_text(encoding="utf-8")


def test_figures_and_curve_are_in_the_report(job: Job) -> None:
    text = page(job)
    for half, found in job.check.figures().items():
        assert f"{found['similarity']['mean']:.3f} ± {found['similarity']['half']:.3f}" in text
        assert found["verdict"].split(":")[0] in text, half
        assert f"error {found['calibration']['error']:.3f}" in text
    assert len(re.findall(r"<circle[^>]*><title>expected", text)) == 2 * 3


def test_ten_pairs_stand_from_worst_to_best_with_the_truth_beside_them(job: Job) -> None:
    given, path = {row["id"]: row for row in data()}, job.config.base / "dmc.yaml"
    texts, images = shown_check(job)
    assert texts["half"] == "text" and images["half"] == "image"
    for shown in (texts, images):
        values = [pair["similarity"] for pair in shown["pairs"]]
        every = sorted(row["check"]["chosen"] for row in checked(path, shown["half"]).values())
        assert len(values) == 10 and values == sorted(values)
        assert values[0] == every[0] and values[-1] == every[-1]
    for pair in texts["pairs"]:
        assert pair["true"] == [given[pair["id"]]["text"]]
        assert pair["made"] == [checked(path, "text")[pair["id"]]["text"]]
        assert pair["made"][0] in page(job)
        assert pair["given"].startswith("data:image/webp") and pair["given"] in page(job)
    for pair in images["pairs"]:
        assert pair["true"].startswith("data:image/webp") and pair["true"] != pair["made"]
        assert pair["given"] == [given[pair["id"]]["text"]]


def test_a_rerun_with_a_check_alone_writes_the_report_anew(tmp_path: Path) -> None:
    path = world(tmp_path, check=0)
    quick_worlds.run(path)
    assert 'id="check"' not in page(Job(load_config(path)))
    world(tmp_path)
    _, summary = quick_worlds.run(path)
    assert summary["done_now"] == 0 and summary["check"]["text"]["generated"] > 0
    assert 'id="check"' in page(Job(load_config(path)))
