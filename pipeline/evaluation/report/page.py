"""The results to read: every table, what has to be known before them, and the page of both."""

from __future__ import annotations

from pathlib import Path

from pipeline.evaluation.report.curves import curves
from pipeline.evaluation.report.direct import direct_orderings, direct_table, retrieval_table
from pipeline.evaluation.report.downstream import (
    comparison_table,
    downstream_table,
    paper_table,
    uncertain,
)
from pipeline.evaluation.report.table import Table
from pipeline.evaluation.results.ranked import MEASURES
from pipeline.evaluation.results.results import Results
from pipeline.report.page import environment
from pipeline.storage.files import write_whole


def tables(results: Results) -> list[Table]:
    """Every table that the results allow."""
    found: list[Table] = []
    for rate in results.rates:
        found += [
            table
            for table in (
                downstream_table(results, rate),
                direct_table(results, rate),
                direct_orderings(results, rate),
                retrieval_table(results, rate),
            )
            if table is not None
        ]
    measures = (results.measure, *(name for name in MEASURES if name != results.measure))
    comparisons = [comparison_table(results, measure) for measure in measures]
    return found + [table for table in comparisons if table is not None]


def warnings(results: Results) -> list[str]:
    """What a reader has to know before any figure, a line each."""
    found = []
    if results.facts.get("judge_selects"):
        found.append(
            "Generated halves are judged by the encoder that selected them, which flatters: set"
            " evaluation.judge."
        )
    if results.facts.get("downstream"):
        found += [
            f"At {rate:.0%} missing {reason}: the downstream figures do not count."
            for rate in results.rates
            if (reason := uncertain(results, rate)) is not None
        ]
    return found


def markdown(results: Results) -> str:
    """Warnings and all tables in Markdown, each table under a heading."""
    parts = [f"**{warning}**" for warning in warnings(results)]
    parts += [f"## {table.title}\n\n{table.markdown()}" for table in tables(results)]
    return "\n\n".join(parts) + "\n"


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
