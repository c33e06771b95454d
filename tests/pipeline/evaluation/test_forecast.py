"""How long an evaluation takes is said before it begins, from pieces that were measured."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.config.config import load_config
from pipeline.evaluation.experiment import Experiment
from pipeline.evaluation.forecast import Forecast
from tests.pipeline.evaluation.evaluated import world

SLOW = 0.02
NAMES = ["drop", "direct", "rag4dmc", "complete"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kinds = {"captioner": "Captioner", "image_generator": "Painter"}
    parts = {
        section: {"kind": f"tests.quick_parts:Quick{kind}", "row_seconds": SLOW}
        for section, kind in kinds.items()
    }
    downstream = {"kind": "heads", "steps": 5, "seeds": 2, "device": "cpu"}
    return world(tmp_path_factory.mktemp("forecast"), parts, draws=2, downstream=downstream)


def test_what_is_to_do_is_foreseen_before_any_of_it_is_done(place: Path) -> None:
    told: list[Forecast] = []
    experiment = Experiment(load_config(place))

    def foreseen(one: Forecast) -> None:
        told.append(one)
        assert not list(experiment.folder.glob("runs/*/completed/*"))

    started = time.perf_counter()
    results = experiment.run(NAMES, foreseen=foreseen)
    spent = time.perf_counter() - started
    (first,) = told
    hidden = results.facts["train"] // 2
    # Two draws of two variants that generate; two seeds of four variants.
    assert first.rows == 2 * 2 * hidden
    assert first.trainings == 2 * 4 * 2
    least, most = first.seconds
    assert first.rows * SLOW < least <= most < spent + 60
    assert first.training > 0

    experiment.run(NAMES, foreseen=told.append)
    again = told[1]
    assert again.rows == 0 and again.generating == (0.0, 0.0)
    # Of drop and complete it is known that they were trained.
    assert again.trainings == 2 * 2 * 2
