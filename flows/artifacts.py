"""What Prefect's pages show of a run: how far it is, the outcomes as a table, and its summary.

Artifacts are for who looks on: a server that does not take one never harms the run.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
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

from flows.pace import Pace
from flows.progress import RunView
from pipeline.ledger.comparison import PASSING
from pipeline.ledger.summary import told

logger = logging.getLogger(__name__)

UPDATE_SECONDS = 5.0
# What a run does with rows, by their kind.
KINDS = {
    PASSING: "pass rows through",
    "check text": "check texts",
    "text": "complete texts",
    "check image": "check images",
    "image": "complete images",
}


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

    Rows that a generator completes are told apart by half from those that pass through and from pairs that
    are checked, each with a pace of its own. Rows of a shard that is tried again count once.

    Parameters
    ----------
    name
        The run's.
    totals
        Rows that the run is to do by kind: "text" and "image" where they have a generator, "check text"
        and "check image" for checked pairs, and `PASSING` for all others.
    view
        Shows it on a terminal as well.
    lost
        Seconds so far in which this process loaded models.
    """

    def __init__(
        self,
        name: str,
        totals: Mapping[str, int],
        view: RunView | None = None,
        lost: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._totals = {kind: totals[kind] for kind in KINDS if totals.get(kind)}
        self._view = view
        self._shards: dict[str, Counter[str]] = {}
        self._done: dict[str, Counter[str]] = {kind: Counter() for kind in self._totals}
        self._paces = {kind: Pace(lost) for kind in self._totals}
        self._artifact: UUID | None = None
        self._told = time.monotonic()
        self._show()
        if self._totals:
            with _harmless():
                made = create_progress_artifact(
                    0.0,
                    key=artifact_key(name, "progress"),
                    description=f"{sum(self._totals.values())} rows to do",
                )
                self._artifact = cast(UUID, made)

    def begin(self, shard: str, kind: str) -> None:
        """This process begins with a shard, or begins it again."""
        self._set(shard, kind, {})
        self._paces[kind].begin()
        self._show()

    def answered(self, kind: str, rows: int) -> None:
        """The generator of this process has answered so many rows more."""
        self._paces[kind].add(rows)

    def rows_done(self, shard: str, kind: str, outcomes: Mapping[str, int]) -> None:
        """Rows of a shard that were done just now, by outcome."""
        self._set(shard, kind, self._shards[shard] + Counter(outcomes))
        if kind == PASSING:
            self._paces[kind].add(sum(outcomes.values()))
        self._show()

    def end(self, shard: str, kind: str, outcomes: Mapping[str, int]) -> None:
        """A shard is done; all of its rows by outcome."""
        self._set(shard, kind, outcomes)
        self._show()

    def end_by_worker(
        self, shard: str, kind: str, outcomes: Mapping[str, int], seconds: float, worker: str
    ) -> None:
        """A worker, one of several, has done a shard in that time."""
        self._paces[kind].add_worker(sum(outcomes.values()), seconds, worker)
        self.end(shard, kind, outcomes)

    def begin_work(self) -> None:
        """Workers have been handed their first shards."""
        for pace in self._paces.values():
            pace.begin()

    def _set(self, shard: str, kind: str, outcomes: Mapping[str, int]) -> None:
        """What is done of a shard is this, and no more what was said before."""
        self._done[kind].subtract(self._shards.get(shard, {}))
        self._shards[shard] = Counter(outcomes)
        self._done[kind].update(outcomes)

    def _show(self) -> None:
        done = {kind: counts.total() for kind, counts in self._done.items()}
        if self._view is not None:
            for kind, total in self._totals.items():
                note = _counted(self._done[kind])
                self._view.step(KINDS[kind], done[kind], total, note, self._paces[kind])
        over = done == self._totals
        if self._artifact and (over or time.monotonic() - self._told >= UPDATE_SECONDS):
            self._told = time.monotonic()
            with _harmless():
                update_progress_artifact(
                    self._artifact, self._share(done), description=self._describe(done)
                )

    def _share(self, done: Mapping[str, int]) -> float:
        """Percent done, of the rows that take their time: others pass in no time."""
        slow = [kind for kind in self._totals if kind != PASSING] or list(self._totals)
        rows, total = (sum(counts[kind] for kind in slow) for counts in (done, self._totals))
        return min(100.0, 100.0 * rows / total)

    def _describe(self, done: Mapping[str, int]) -> str:
        parts = []
        for kind, total in self._totals.items():
            pace = self._paces[kind].told(max(0, total - done[kind]))
            told = "; ".join(filter(None, (pace, _counted(self._done[kind]))))
            parts.append(f"{KINDS[kind]}: {done[kind]} of {total}" + (f" ({told})" if told else ""))
        return " · ".join(parts)


def _counted(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()) if count)


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
