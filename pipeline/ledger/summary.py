"""What a run leaves to be read: the outcomes, what changed since the last run, what failed and why."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from generators.usage import Price
from kb.embeddings import MODALITIES, Modality
from pipeline.dataset.forms.reasons import kind_of
from pipeline.ledger.ledger import Ledger, Manifest, count_outcomes
from pipeline.ledger.plan import Plan
from pipeline.ledger.usage import summed, told_usage
from pipeline.storage.files import read_json

# Ids told of each fault, and faults told of each run.
EXAMPLES = 5
FAULTS = 20


def summarise(
    ledger: Ledger,
    plan: Plan,
    run_id: str,
    last: str | None,
    rewritten: int,
    times: list[dict[str, Any]],
    prices: Mapping[Modality, Price | None] | None = None,
    warnings: Sequence[str] = (),
    check: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """What a run did, and how the completed dataset stands now.

    Parameters
    ----------
    ledger
        As it stands after the run.
    plan
        What the run set out to do.
    run_id
    last
        Id of the run that left the last summary; None for none.
    rewritten
        Parts that lost rows or got other columns.
    times
        Seconds by step.
    prices
        What the generators' servers ask for, by the half that they make.
    warnings
        What the user should know of the knowledge base and of the run.
    check
        What the run's check found, by half; see `pipeline.check.figures`.

    Returns
    -------
    dict
        `run_id`, `last`, `finished` (UTC), `times`, `completed` (folder), `rows`, `input_rows`,
        `outcomes` (rows by status), `by_missing` (outcomes by missing half, "none" for rows with
        both), `done_now`, `held_back`, `why` and `sections` (rows done or refreshed by reason, see
        `Plan`), `deleted`, `recovered` (rows that earlier runs did that were cut off before they
        could leave a summary), `usage` (of generators' servers by half, see
        `pipeline.ledger.usage.summed`), `rewritten`, `check`, `warnings`, `hopeless` (a sentence for each half of which
        not one was completed, of those that this run tried, or of all where it tried none), and `faults`: for "rejected" and "failed" a list of
        `reason`, `rows` and a few `ids`, the most frequent first.
    """
    held = ledger.table()
    groups: dict[str, dict[str, int]] = {}
    missing = pc.fill_null(held["missing"], "none")
    for name in sorted(pc.unique(missing).to_pylist()):
        counts = count_outcomes(held.filter(pc.equal(missing, name)))
        groups[name] = {status: count for status, count in counts.items() if count}
    return {
        "run_id": run_id,
        "last": last,
        "finished": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "times": list(times),
        "completed": str(ledger.parts),
        "rows": len(held),
        "input_rows": plan.done + sum(plan.pending.values()),
        "outcomes": count_outcomes(held),
        "by_missing": groups,
        "done_now": sum(len(shard.rows) for shard in plan.shards),
        "held_back": plan.held_back,
        "why": plan.why,
        "sections": plan.sections,
        "deleted": plan.deleted,
        "recovered": sum(
            len(m.rows)
            for m in ledger.manifests.values()
            if m.run_id != run_id and m.run_id > (last or "")
        ),
        "rewritten": rewritten,
        "usage": summed(ledger.folder, run_id, prices or {}),
        "check": dict(check or {}),
        "warnings": list(dict.fromkeys(warnings)),
        "hopeless": _hopeless(ledger, run_id),
        "faults": _faults(ledger),
    }


def headline(summary: Mapping[str, Any]) -> str:
    """A summary in a line: how many rows have which outcome, how many of them by this run."""
    outcomes = ", ".join(f"{count} {name}" for name, count in summary["outcomes"].items())
    seconds = sum(step["seconds"] for step in summary["times"])
    return f"{summary['rows']} rows: {outcomes}; {summary['done_now']} done in {seconds:.0f} s"


def told(summary: Mapping[str, Any]) -> list[str]:
    """A summary in lines: what changed since the last run, warnings, what failed and why."""
    changes = [f"{count} {why}" for why, count in summary["why"].items()]
    if summary["sections"]:
        parts = ", ".join(f"{name} ({count})" for name, count in summary["sections"].items())
        changes.append(f"settings that changed, with their rows: {parts}")
    if summary["deleted"]:
        changes.append(f"{summary['deleted']} no longer in the input")
    if summary["recovered"]:
        changes.append(f"{summary['recovered']} done by a run that was cut off")
    since = "since the last run" if summary["last"] else "in the first run"
    lines = [f"{since}: {'; '.join(changes) or 'nothing new'}"]
    lines += [told_usage(half, usage) for half, usage in summary["usage"].items()]
    lines += summary["hopeless"]
    checks = summary.get("check", {}).values()
    lines += [one["told"] for one in checks if not one.get("off")]
    if any(one.get("off") for one in checks):
        lines.append("check: off where few rows lack a half; run.check: N checks N pairs of each")
    lines += [f"warning: {warning}" for warning in summary["warnings"]]
    for status, faults in summary["faults"].items():
        for fault in faults:
            ids = ", ".join(fault["ids"]) + (", …" if fault["rows"] > len(fault["ids"]) else "")
            lines.append(f"{fault['rows']} {status}: {fault['reason']} ({ids})")
    return lines


def read_summary(folder: Path) -> Mapping[str, Any]:
    """The summary that the last run left in its folder; empty if there is none."""
    return read_json(folder / "summary.json") or {}


def _hopeless(ledger: Ledger, run_id: str) -> list[str]:
    """What there is to say of halves of which none was completed."""
    lines = []
    for half in MODALITIES:
        manifests = ledger.newest_first()
        own = [m for m in manifests if m.run_id == run_id and _lacks(m, half).any()]
        tried = [m for m in own or manifests if _lacks(m, half).any()]
        found: Counter[tuple[str, str]] = Counter()
        for manifest in tried:
            statuses = np.asarray(manifest.rows["status"])[_lacks(manifest, half)]
            if "completed" in statuses:
                break
            found.update(_ends(ledger.parts / manifest.part, half))
        else:
            if found:
                lines.append(_none_completed(half, found, bool(own)))
    return lines


def _lacks(manifest: Manifest, half: str) -> np.ndarray:
    return np.asarray(pc.equal(manifest.rows["missing"], half).fill_null(False))


def _ends(part: Path, half: str) -> Iterable[tuple[str, str]]:
    """Status and reason of the rows of a part that lack a half."""
    table = pq.read_table(part, columns=["status", "missing", "reason"])
    for row in table.filter(pc.equal(table["missing"], half)).to_pylist():
        # Why the half was missing stands before why it still is.
        lost, _, error = kind_of(row["reason"] or "unknown").partition("; ")
        yield row["status"], error or lost


def _none_completed(half: str, found: Counter[tuple[str, str]], in_this_run: bool) -> str:
    rows = found.total()
    (status, why), most = found.most_common(1)[0]
    share = {1: "the only row", most: f"all {rows:,} rows"}.get(rows, f"{most:,} of {rows:,} rows")
    when = "in this run" if in_this_run else "so far"
    return f"no {half} was completed {when}: {share} without one {status}: {why}"


def _faults(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    counts: dict[str, Counter[str]] = {"rejected": Counter(), "failed": Counter()}
    ids: dict[tuple[str, str], list[str]] = {}
    for manifest in ledger.newest_first():
        if not pc.any(pc.is_in(manifest.rows["status"], pa.array(counts, pa.string()))).as_py():
            continue
        columns = ["id", "status", "reason"]
        for row in pq.read_table(ledger.parts / manifest.part, columns=columns).to_pylist():
            status, reason = row["status"], kind_of(row["reason"] or "unknown")
            if status in counts:
                counts[status][reason] += 1
                held = ids.setdefault((status, reason), [])
                if len(held) < EXAMPLES:
                    held.append(row["id"])
    return {
        status: [
            {"reason": reason, "rows": rows, "ids": ids[status, reason]}
            for reason, rows in found.most_common(FAULTS)
        ]
        for status, found in counts.items()
        if found
    }
