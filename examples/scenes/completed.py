"""What an evaluation's runs completed, by what scenes hold: `python -m examples.scenes.completed FOLDER`.

`rag4dmc evaluate` measures what any dataset lets it measure. This world also knows which things and
which ground a scene has, and which words are the target's own. FOLDER is the evaluation's output.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from examples.scenes.measure import own_right
from examples.scenes.sources import HERE
from pipeline.check.intervals import interval

Row = dict[str, Any]


def scenes(data: Path) -> dict[str, Row]:
    """Ground, things as a set, and text of every pair, by id."""
    found = {}
    for name in ("target", "external"):
        columns = ["id", "ground", "things", "text"]
        for row in pq.read_table(data / f"{name}.parquet", columns=columns).to_pylist():
            row["holds"] = set(row["things"].split(", ")) if row["things"] else set()
            found[row["id"]] = row
    return found


def completed(folder: Path) -> Iterator[tuple[str, str, list[Row]]]:
    """Mask, variant and generated rows of each run of an evaluation."""
    for run in sorted((folder / "evaluation" / "runs").iterdir()):
        mask, _, variant = run.name.rpartition("-")
        columns = ["id", "text", "missing", "status", "completion"]
        parts = sorted((run / "completed").glob("*.parquet"))
        rows = [row for part in parts for row in pq.read_table(part, columns=columns).to_pylist()]
        yield mask, variant, [row for row in rows if row["status"] == "completed"]


def figures(rows: list[Row], known: dict[str, Row]) -> dict[str, float]:
    """Shares of one run: own words right, and what examples share, by missing half."""
    shares: dict[str, float] = {}
    for missing in ("text", "image"):
        kept = [row for row in rows if row["missing"] == missing]
        if missing == "text" and kept:
            truth = [known[row["id"]]["text"] for row in kept]
            shares["own words right"] = own_right([row["text"] for row in kept], truth)
        shown = [(known[row["id"]], row["completion"]["examples"]) for row in kept]
        shown = [(row, examples) for row, examples in shown if examples]
        if not shown:
            continue
        own = [examples[0]["source"] == "internal" for _, examples in shown]
        shares[f"{missing}: first example is the dataset's own"] = float(np.mean(own))
        for which, most in (("first example", 1), ("an example", None)):
            thing, both = [], []
            for row, examples in shown:
                held = [known[one["id"].rpartition("/")[2]] for one in examples[:most]]
                alike = [one for one in held if row["holds"] & one["holds"]]
                thing.append(bool(alike))
                both.append(any(one["ground"] == row["ground"] for one in alike))
            shares[f"{missing}: {which} shares a thing"] = float(np.mean(thing))
            shares[f"{missing}: {which} shares a thing and the ground"] = float(np.mean(both))
    return shares


def over_draws(values: list[float]) -> dict[str, float | None]:
    """The mean, and half of its 95 % interval where there are several draws."""
    if len(values) < 2:
        return {"mean": round(float(np.mean(values)), 3), "half": None}
    found = interval(values)
    return {"mean": round(found.mean, 3), "half": round(found.half, 3)}


def summary(folder: Path, data: Path) -> dict[str, dict[str, dict[str, float | None]]]:
    """Figures by variant, over draws, and rag4dmc less direct in the words."""
    known, found = scenes(data), defaultdict(dict)
    for mask, variant, rows in completed(folder):
        found[variant][mask] = figures(rows, known)
    told = {
        variant: {
            name: over_draws([draw[name] for draw in draws.values() if name in draw])
            for name in dict.fromkeys(key for draw in draws.values() for key in draw)
        }
        for variant, draws in found.items()
    }
    words, ours, plain = "own words right", found["rag4dmc"], found["direct"]
    both = [mask for mask in ours if words in ours[mask] and words in plain.get(mask, {})]
    gains = [ours[mask][words] - plain[mask][words] for mask in both]
    if gains:
        told["rag4dmc - direct"] = {words: over_draws(gains)}
    return told


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the evaluation's output")
    parser.add_argument(
        "--data", type=Path, default=HERE, help="folder of the world's Parquet files"
    )
    options = parser.parse_args()
    if not (options.folder / "evaluation" / "runs").is_dir():
        raise SystemExit(f"{options.folder} holds no evaluation: evaluation/runs is not there")
    print(json.dumps(summary(options.folder, options.data), indent=1))


if __name__ == "__main__":
    main()
