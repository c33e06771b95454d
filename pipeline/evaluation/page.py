"""The page of an evaluation: its tables, its curves, and the paper's figures beside them."""

from __future__ import annotations

from pathlib import Path

from pipeline.evaluation.downstream_tables import paper_table
from pipeline.evaluation.results import Results
from pipeline.evaluation.tables import tables, warnings
from pipeline.files import write_whole
from pipeline.report.charts import Curve, curve
from pipeline.report.page import environment


def write_page(results: Results, path: Path) -> Path:
    """Write the page as one HTML file that needs nothing beside it; its path."""
    page = (
        environment()
        .get_template("evaluation.html.j2")
        .render(
            facts=results.facts,
            tables=tables(results),
            paper=paper_table(),
            curves=curves(results),
            warnings=warnings(results),
        )
    )
    write_whole(path, page)
    return path


def curves(results: Results) -> list[Curve]:
    """Mean R@1 over the missing rates, and over the points of each sweep."""
    drawn: list[Curve | None] = []
    rates = results.rates
    for label in results.labels:
        found = [(rate, results.mean_recall(rate, label)) for rate in rates]
        points = [(f"{rate:.0%}", float(own.mean())) for rate, own in found if own is not None]
        drawn.append(
            curve(
                f"{label}: mean R@1 over the missing rate",
                [name for name, _ in points],
                [value for _, value in points],
            )
        )
    for rate in rates:
        drawn += [
            _sweep_curve(results, rate, swept)
            for swept in dict.fromkeys(
                label.rsplit("=", 1)[0] for label in results.labels if "=" in label
            )
        ]
    return [one for one in drawn if one is not None]


def _sweep_curve(results: Results, rate: float, swept: str) -> Curve | None:
    points = []
    for label in results.labels:
        if label.startswith(f"{swept}="):
            recall = results.mean_recall(rate, label)
            if recall is not None:
                points.append((label.rsplit("=", 1)[1], float(recall.mean())))
    return curve(
        f"{swept}: mean R@1 at {rate:.0%} missing",
        [name for name, _ in points],
        [value for _, value in points],
    )
