"""Charts: every line on one scale, with its intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.check.intervals import Interval
from pipeline.evaluation.report.chart import _ticks, draw_chart
from pipeline.evaluation.report.curves import curves
from pipeline.evaluation.results.records import Record
from pipeline.evaluation.results.results import Results

PLACES = [(0.3, "30%"), (0.7, "70%")]


def test_places_and_heights_are_to_scale() -> None:
    chart = draw_chart(
        "recall",
        [(0.3, "30%"), (0.5, "50%"), (0.7, "70%")],
        {"a": [Interval(0.4, 0.02), None, Interval(0.5, 0.01)], "b": [Interval(0.45, 0.0)] * 3},
        levels={"c": Interval(0.46, 0.1)},
    )
    assert chart is not None
    level, a, b = chart.lines
    xs = [x for x, _ in chart.columns]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])
    assert len(a.points) == 2 and len(b.points) == 3
    assert a.points[0].y > b.points[0].y > a.points[1].y
    scale = (a.points[0].y - a.points[1].y) / 0.1
    for point, half in zip(a.points, (0.02, 0.01), strict=True):
        assert point.low - point.y == pytest.approx(half * scale, abs=0.15)
        assert point.y - point.high == pytest.approx(half * scale, abs=0.15)
    assert level.dashed and level.name == "c: 0.460" and not level.points
    heights = {text: y for y, text in chart.rows}
    assert heights["0.40"] == pytest.approx(a.points[0].y)


def test_what_has_no_two_points_is_not_drawn() -> None:
    assert draw_chart("recall", PLACES[:1], {"a": [Interval(0.4, 0.1)]}) is None
    assert draw_chart("recall", PLACES, {"a": [Interval(0.4, 0.1), None]}) is None
    chart = draw_chart("recall", PLACES, {"a": [Interval(0.4, 0.0)] * 2})
    assert chart is not None and len({y for y, _ in chart.rows}) > 1


def test_without_anything_generated_curves_are_of_retrieval() -> None:
    results = Results({})
    for rate in (0.3, 0.7):
        own = Record(rate, "rag4dmc", "retrieval", "quality", rate, 0.1, missing="text")
        results.add(replace(own, mode="fusion", used=True))
        results.add(replace(own, mode="cross", used=False, value=0.0))
    (chart,) = curves(results)
    assert chart.label == "cosine of the example's text to the hidden one over the missing rate"
    assert [point.title for point in chart.lines[0].points] == [
        "rag4dmc, 30%: 0.300 ± 0.100",
        "rag4dmc, 70%: 0.700 ± 0.100",
    ]


@pytest.mark.parametrize("seed", range(5))
def test_any_range_has_a_few_round_ticks_that_hold_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for low, span in zip(
        generator.normal(size=200), 10 ** generator.uniform(-3, 3, 200), strict=True
    ):
        ticks = _ticks(low, low + span)
        assert 2 <= len(ticks) <= 7
        assert ticks[0] <= low + 1e-9 and ticks[-1] >= low + span - 1e-9
