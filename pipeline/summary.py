"""What a run leaves to be read: the outcomes, what changed since the last run, what failed and why."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ledger import Ledger, count_outcomes

# Ids told of each fault, and faults told of each run.
EXAMPLES = 5
FAULTS = 20


def summarise(ledger: Ledger) -> dict[str, Any]:
    """Counts of all rows of the completed dataset, and why rows were rejected or failed.

    Returns
    -------
    dict
        `rows`, `outcomes` (rows by status), `by_missing` (outcomes by missing half, "none" for
        rows with both), `faults`: for "rejected" and "failed" a list of `reason`, `rows` and a
        few `ids`, the most frequent first.
    """
    held = ledger.table()
    groups: dict[str, dict[str, int]] = {}
    missing = pc.fill_null(held["missing"], "none")
    for name in sorted(pc.unique(missing).to_pylist()):
        counts = count_outcomes(held.filter(pc.equal(missing, name)))
        groups[name] = {status: count for status, count in counts.items() if count}
    return {
        "rows": len(held),
        "outcomes": count_outcomes(held),
        "by_missing": groups,
        "faults": _faults(ledger),
    }


def _faults(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    counts: dict[str, Counter[str]] = {"rejected": Counter(), "failed": Counter()}
    ids: dict[tuple[str, str], list[str]] = {}
    for manifest in ledger.newest_first():
        if not pc.any(pc.is_in(manifest.rows["status"], pa.array(counts, pa.string()))).as_py():
            continue
        columns = ["id", "status", "reason"]
        for row in pq.read_table(ledger.parts / manifest.part, columns=columns).to_pylist():
            status, reason = row["status"], row["reason"] or "unknown"
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
