"""What Prefect's pages show of a run: how far it is, the outcomes as a table, and its summary.

Artifacts are for who looks on: a server that does not take one never harms the run.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException

from flows.progress import RunView
from pipeline.ledger.summary import told

logger = logging.getLogger(__name__)

UPDATE_SECONDS = 5.0


def artifact_key(name: str, what: str) -> str:
    """A key as Prefect has them (lower case, digits, hyphens), one for each run's name."""
    return re.sub(r"[^a-z0-9]+", "-", f"rag4dmc {name} {what}".lower()).strip("-")


@contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        logger.warning("the Prefect server did not take an artifact: %s", error)


class RowsProgress:
    """How many of a run's rows are done, as a progress artifact and in the live view.

    Parameters
    ----------
    name
        The run's.
    total
        Rows that the run is to do.
    view
        Shows it on a terminal as well.
    """

    def __init__(self, name: str, total: int, view: RunView | None = None) -> None:
        self._total = total
        self._view = view
        self._outcomes: Counter[str] = Counter()
        self._artifact: UUID | None = None
        self._told = time.monotonic()
        if view is not None:
            view.rows_expected(total)
        if total:
            with _harmless():
                made = create_progress_artifact(
                    0.0,
                    key=artifact_key(name, "progress"),
                    description=f"{total} rows to do",
                )
                self._artifact = cast(UUID, made)

    def rows_done(self, outcomes: Mapping[str, int]) -> None:
        """Rows that were done just now, by outcome."""
        found = {name: count for name, count in outcomes.items() if count}
        self._outcomes.update(found)
        if self._view is not None:
            self._view.rows_done(found)
        done = self._outcomes.total()
        over = done >= self._total
        if self._artifact and (over or time.monotonic() - self._told >= UPDATE_SECONDS):
            self._told = time.monotonic()
            note = ", ".join(f"{count} {name}" for name, count in sorted(self._outcomes.items()))
            with _harmless():
                update_progress_artifact(
                    self._artifact,
                    min(100.0, 100.0 * done / self._total),
                    description=f"{done} of {self._total} rows: {note}",
                )


def outcome_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of outcomes: a row for each missing half and one for all, a column an outcome."""
    names = list(summary["outcomes"])
    rows = [
        {"missing": missing, **{name: counts.get(name, 0) for name in names}}
        for missing, counts in summary["by_missing"].items()
    ]
    return [*rows, {"missing": "all rows", **summary["outcomes"]}]


def summary_markdown(summary: Mapping[str, Any]) -> str:
    """What a run did, what failed and why, as Markdown."""
    base = "built" if summary["built"] else "as it was"
    lines = [
        f"Run `{summary['run_id']}`, finished {summary['finished']}: {summary['done_now']} rows done,"
        f" {summary['held_back']} held back; knowledge base {base}.",
        "",
        # Reasons and ids quote data: as code they stay what they are.
        *("- `" + " ".join(line.replace("`", "'").split()) + "`" for line in told(summary)),
        "",
        "| step | seconds |",
        "| --- | --- |",
        *(f"| {step['step']} | {step['seconds']:g} |" for step in summary["times"]),
    ]
    return "\n".join(lines)


def publish(name: str, summary: Mapping[str, Any]) -> None:
    """Show the outcomes of the whole dataset and what this run changed."""
    with _harmless():
        create_table_artifact(
            outcome_rows(summary),
            key=artifact_key(name, "outcomes"),
            description=f"Rows of {name} by missing half and outcome",
        )
    with _harmless():
        create_markdown_artifact(
            summary_markdown(summary),
            key=artifact_key(name, "summary"),
            description=f"What the run of {name} did",
        )
