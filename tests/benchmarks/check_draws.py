"""What candidates are worth: the same hidden halves with few candidates, with many, and with as many as pay.

    python -m tests.benchmarks.check_draws FOLDER text|image [--hidden 200] [--check 150] [--prices 0.001]

Halves of some rows of the example world's `target.parquet` are hidden and completed by the demo's settings,
with ten candidates, with two, with four, and with two to ten by each price. Candidates are remembered, and
a row drawn in rounds is a prefix of the row drawn at once, so that each is drawn once. Told are candidates a
row, similarity to the hidden half by the same encoder, and how much less that is than with ten, row by row,
with 95 % intervals; and what the check said. A setting that is done is kept, and one that was cut off goes
on: the same command once more.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from kb.embeddings import Modality
from pipeline.check.intervals import interval, paired
from pipeline.config.config import make_config
from pipeline.dataset.images import decode
from pipeline.job import Job
from pipeline.storage.files import write_whole
from tests.benchmarks.check_truth import HALVES, SCENES, configured, hide

LEAST, MOST = 2, 10


def settings(prices: list[float]) -> dict[str, Any]:
    """`generation.n` by what it is called; all candidates come first."""
    adaptive = {
        f"{LEAST} to {MOST}, {price:g}": {"least": LEAST, "most": MOST, "min_improvement": price}
        for price in prices
    }
    return {"10": MOST, "2": LEAST, "4": 4, **adaptive}


def measure(folder: Path, name: str, n: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Of each hidden row its candidates and its similarity to the truth; and what the check said."""
    half: Modality = options.half
    kept = folder / f"{half}-{name}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    place = folder / f"draw-{options.draw}"
    config = configured(place / "run", hide(place, options.draw, options.hidden), options)
    values = config.model_dump(mode="json")
    values["generation"]["n"] = n
    values["image_generator" if half == "text" else "captioner"] = None
    # Fewer candidates would have other pairs checked, which nothing is asked of here.
    values["run"] |= {"remember": True, "check": 0 if isinstance(n, int) else options.check}
    job = Job(make_config(values, SCENES))
    with job.lock():
        job.begin()
        job.build()
        summary = job.complete()
    truth = {row["id"]: row for row in pq.read_table(SCENES / "target.parquet").to_pylist()}
    rows = job.completed().to_table().to_pylist()
    made = [row for row in rows if row["missing"] == half and row["status"] == "completed"]
    own, true = (
        job.models.embed([_half(row, half) for row in some], half)
        for some in (made, [truth[row["id"]] for row in made])
    )
    cosines = np.einsum("nd,nd->n", own, true).tolist()
    drawn = [len(row["completion"]["candidates"]) for row in made]
    told = zip(drawn, cosines, strict=True)
    found = dict(zip([row["id"] for row in made], told, strict=True))
    job.close()
    text = json.dumps({"check": summary["check"].get(half), "rows": found}, indent=1)
    write_whole(kept, text)
    return dict(json.loads(text))


def _half(row: dict[str, Any], half: Modality) -> Any:
    return [row["text"]] if half == "text" else decode(row["image"]["bytes"])


def table(found: dict[str, dict[str, Any]]) -> str:
    """The settings side by side."""
    lines = ["| n | candidates a row | similarity to the truth | less than with 10 |"]
    lines.append("| --- | --- | --- | --- |")
    best = found["10"]["rows"]
    for name, one in found.items():
        own = {row_id: value for row_id, value in one["rows"].items() if row_id in best}
        drawn = np.mean([count for count, _ in own.values()])
        cosines = [cosine for _, cosine in own.values()]
        less = paired([best[row_id][1] for row_id in own], cosines)
        lines.append(f"| {name} | {drawn:.1f} | {interval(cosines)} | {less} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where everything is kept")
    parser.add_argument("half", choices=HALVES, help="which is hidden")
    parser.add_argument("--draw", type=int, default=0, help="number of the draw of hidden rows")
    parser.add_argument("--hidden", type=int, default=200, help="rows that lack each half")
    parser.add_argument("--check", type=int, default=150, help="pairs checked")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    parser.add_argument(
        "--prices", type=float, nargs="+", default=[0.001, 0.002, 0.003], help="min_improvement"
    )
    options = parser.parse_args()
    options.n = MOST
    found = {
        name: measure(options.folder, name, n, options)
        for name, n in settings(options.prices).items()
    }
    print(table(found))
    for name, one in found.items():
        if draws := (one["check"] or {}).get("draws"):
            print(f"{name}, by the check: {json.dumps(draws)}")


if __name__ == "__main__":
    main()
