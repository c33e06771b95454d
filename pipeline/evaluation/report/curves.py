"""Curves of an evaluation: what was measured over the missing rates, and over each sweep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.check.intervals import Interval, interval
from pipeline.evaluation.report.chart import Chart, draw_chart
from pipeline.evaluation.results.claims import PAPER
from pipeline.evaluation.results.ranked import MEASURES
from pipeline.evaluation.results.results import Results

Figure = Callable[[float, str], Interval | None]

# The missing rate of the paper's table.
PAPER_RATE = 0.7


def curves(results: Results) -> list[Chart]:
    """A chart over the missing rates and one for each sweep, of the first of these that was
    measured: mean R@1 or mean recall downstream, the cosine of what was generated, the quality of the example."""
    drawn: list[Chart | None] = []
    for measure, figure in _measures(results):
        drawn.append(_over_rates(results, measure, figure))
        for swept in dict.fromkeys(one.rsplit("=", 1)[0] for one in results.labels if "=" in one):
            drawn += [_over_sweep(results, measure, figure, swept, r) for r in results.rates]
    return [one for one in drawn if one is not None]


def _measures(results: Results) -> list[tuple[str, Figure]]:
    """What is drawn, by name, and how each is found by rate and label."""
    if any(results.ranked(rate, label) for rate in results.rates for label in results.labels):

        def mean_recall(rate: float, label: str) -> Interval | None:
            recalls = results.mean_recall(rate, label)
            return None if recalls is None else interval(recalls)

        return [(results.measure, mean_recall)]
    groups = {record.group for record in results.records}
    # The examples' quality in the mode that each variant uses.
    which: dict[str, Any] = {"group": "direct", "measure": "cosine"}
    said = "cosine of the generated {} to the hidden one"
    if "direct" not in groups:
        which = {"group": "retrieval", "measure": "quality", "used": True}
        said = "cosine of the example's {} to the hidden one"

    def of(missing: str) -> Figure:
        def figure(rate: float, label: str) -> Interval | None:
            record = results.value(rate, label, missing=missing, **which)
            return None if record is None else Interval(record.value, record.half or 0.0)

        return figure

    return [(said.format(missing), of(missing)) for missing in ("text", "image")]


def _over_rates(results: Results, measure: str, figure: Figure) -> Chart | None:
    rates = results.rates
    lines = {
        label: [figure(rate, label) for rate in rates]
        for label in results.labels
        if "=" not in label
    }
    note, marks = _note(measure), {}
    if measure == "mean R@1" and PAPER_RATE in rates:
        marks = {
            label: [sum(both) / 200 if rate == PAPER_RATE else None for rate in rates]
            for label, both in PAPER.items()
        }
        note += " Rings: the paper's own, on MSCOCO at 70 % missing."
    places = [(rate, f"{rate:.0%}") for rate in rates]
    return draw_chart(f"{measure} over the missing rate", places, lines, marks=marks, note=note)


def _over_sweep(
    results: Results, measure: str, figure: Figure, swept: str, rate: float
) -> Chart | None:
    points = [label for label in results.labels if label.startswith(f"{swept}=")]
    found = [figure(rate, label) for label in points]
    places = [(float(n), label.rsplit("=", 1)[1]) for n, label in enumerate(points)]
    others = {label: figure(rate, label) for label in results.labels if "=" not in label}
    levels = {label: one for label, one in others.items() if one is not None}
    return draw_chart(
        f"{measure} over {swept.partition(' ')[2]} at {rate:.0%} missing",
        places,
        {swept: found},
        levels,
        note=_note(measure),
    )


def _note(measure: str) -> str:
    over = "seeds" if measure in MEASURES else "rows"
    return (
        f"Bars: 95 % intervals over {over}. Differences are paired, and surer: see the orderings."
    )
