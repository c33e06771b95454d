"""The page of an evaluation: its tables, its curves, and the paper's figures beside them."""

from __future__ import annotations

from pathlib import Path

from pipeline.evaluation.curves import curves
from pipeline.evaluation.downstream_tables import paper_table
from pipeline.evaluation.results import Results
from pipeline.evaluation.tables import tables, warnings
from pipeline.report.page import environment
from pipeline.storage.files import write_whole


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
