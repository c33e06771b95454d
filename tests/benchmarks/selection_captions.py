"""Measures the weight of BLEU in the score of captions (λ₂), on the candidates of a run.

    python -m tests.benchmarks.selection_captions RUN/completed TRUTH.parquet

RUN/completed: what a run completed from a dataset whose texts were hidden. TRUTH.parquet: the
same rows whole (columns `id`, `text`). The candidates' cosine and BLEU stand in the run's output,
so nothing is generated or embedded again: for each λ₂ the candidate that would have been chosen
is compared with the true caption by BLEU and chrF, beside the best that the candidates hold (the
oracle) and their mean (chance).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sacrebleu.metrics import CHRF

from pipeline.report import completed_rows
from selection.bleu import sentence_bleu

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 1e6)


def truths(path: Path) -> dict[str, list[str]]:
    """The true captions by id."""
    table = pq.read_table(path, columns=["id", "text"]).to_pydict()
    return {
        one: [text] if isinstance(text, str) else list(text)
        for one, text in zip(table["id"], table["text"], strict=True)
    }


def candidates(
    folder: Path, known: Mapping[str, Sequence[str]]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Per row its valid candidates' cosine, BLEU to the examples, and BLEU and chrF to the truth."""
    chrf = CHRF()
    found = []
    for row in completed_rows(sorted(Path(folder).glob("part-*.parquet"))):
        if row["missing"] != "text" or row["status"] != "completed" or row["id"] not in known:
            continue
        valid = [one for one in row["completion"]["candidates"] if one["valid"]]
        true = known[row["id"]]
        found.append(
            (
                np.array([one["cosine"] or 0.0 for one in valid]),
                np.array([one["bleu"] or 0.0 for one in valid]),
                np.array([sentence_bleu(one["text"], true, lowercase=True) for one in valid]),
                np.array([chrf.sentence_score(one["text"], true).score / 100 for one in valid]),
            )
        )
    return found


def measure(folder: Path, truth: Path) -> list[dict[str, Any]]:
    """One line per λ₂, then the oracle's and chance's."""
    rows = candidates(folder, truths(truth))
    if not rows:
        raise ValueError(f"{folder} holds no completed text whose truth is in {truth}")
    picks = {weight: [int((c + weight * b).argmax()) for c, b, _, _ in rows] for weight in WEIGHTS}
    results = []
    for weight, pick in picks.items():
        entry: dict[str, Any] = {"lambda2": weight, "rows": len(rows)}
        for name, place in (("bleu", 2), ("chrf", 3)):
            got = np.array([row[place][n] for row, n in zip(rows, pick, strict=True)])
            base = np.array([row[place][n] for row, n in zip(rows, picks[0.0], strict=True)])
            entry[name] = round(float(got.mean()), 4)
            entry[f"{name}_gain"] = round(float((got - base).mean()), 4)
            error = (got - base).std(ddof=1) / np.sqrt(len(got)) if len(got) > 1 else 0.0
            entry[f"{name}_standard_error"] = round(float(error), 4)
        results.append(entry)
    for name, over in (("oracle", np.max), ("chance", np.mean)):
        results.append(
            {
                "lambda2": name,
                "bleu": round(float(np.mean([over(row[2]) for row in rows])), 4),
                "chrf": round(float(np.mean([over(row[3]) for row in rows])), 4),
            }
        )
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("completed", type=Path)
    parser.add_argument("truth", type=Path)
    arguments = parser.parse_args()
    for line in measure(arguments.completed, arguments.truth):
        print(json.dumps(line))
