"""Whether a run's check tells the truth: its figures beside those of the really hidden halves.

    python -m tests.benchmarks.check_truth FOLDER [--draws 20] [--first 0] [--hidden 300] [--check 150]

Each draw hides the text of some rows of the example world's `target.parquet` and the picture of as many
others, and completes them by the demo's settings with a check. Told are, by half, the check's mean
similarity and its interval; the mean similarity of the generated halves to the hidden ones, by the same
encoder; whether that lies within the check's interval, and whether the two differ by less than the interval
of their difference (the hidden rows are a sample as well); and of the confidence of rows its mean distance
from the truth over ten bins, and by how much the surer half is more like the truth than the other. A draw
that is done is kept, and one that was cut off goes on: the same command once more.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kb.embeddings import Modality
from pipeline.check.intervals import interval, paired
from pipeline.config.config import Config, load_config, make_config
from pipeline.dataset.images import decode
from pipeline.job import Job
from pipeline.storage.files import write_whole

SCENES = Path(__file__).parents[2] / "examples" / "scenes"
HALVES: tuple[Modality, ...] = ("text", "image")
BINS = 10


def hide(folder: Path, draw: int, hidden: int) -> Path:
    """The target's rows with some halves hidden, as a dataset."""
    path = folder / "rows.parquet"
    if path.is_file():
        return path
    table = pq.read_table(SCENES / "target.parquet")
    order = np.random.default_rng(draw).permutation(len(table))
    rows = table.to_pylist()
    for half, chosen in (("text", order[:hidden]), ("image", order[hidden : 2 * hidden])):
        for number in chosen:
            rows[number][half] = None
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path, row_group_size=100)
    return path


def configured(folder: Path, path: Path, options: argparse.Namespace) -> Config:
    """The demo's config on these rows, with a check."""
    values = load_config(SCENES / "dmc.yaml").model_dump(mode="json")
    values["dataset"]["path"] = str(path.resolve())
    values |= {"output": str(folder.resolve()), "export": []}
    values["run"] |= {
        "check": options.check,
        "embeddings": str(folder.resolve().parent / "embeddings"),
        "shard_size": 64,
    }
    values["generation"]["n"] = options.n
    values["image_generator"] |= {"steps": options.steps, "batch_size": 32}
    values["captioner"]["batch_size"] = 32
    return make_config(values, SCENES)


def of_hidden(job: Job, half: Modality, truth: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Of the generated halves the cosine to the hidden one, and the confidence (NaN: none), [n] each."""
    rows = [
        row
        for row in job.completed().to_table().to_pylist()
        if row["missing"] == half and row["status"] == "completed"
    ]
    made = job.models.embed([_half(row, half) for row in rows], half)
    true = job.models.embed([_half(truth[row["id"]], half) for row in rows], half)
    sure = [row["completion"]["confidence"] for row in rows]
    return np.einsum("nd,nd->n", made, true), np.array(sure, np.float64)


def _half(row: dict[str, Any], half: Modality) -> Any:
    return [row["text"]] if half == "text" else decode(row["image"]["bytes"])


def compared(found: dict[str, Any], own: np.ndarray, sure: np.ndarray) -> dict[str, Any]:
    """A check's figures of a half beside what is true of the hidden rows."""
    told, true = found["similarity"], interval(own)
    gap = abs(told["mean"] - true.mean)
    answer = {
        "check": told,
        "true": {"mean": true.mean, "half": true.half, "rows": len(own)},
        "within": bool(gap <= told["half"]),
        "agrees": bool(gap <= np.hypot(told["half"], true.half)),
        "random": found["random"],
        "example": found.get("example"),
        "verdict": found["verdict"],
        "calibration_error_of_check": (found["calibration"] or {}).get("error"),
    }
    if np.isfinite(sure).all():
        order = np.argsort(sure, kind="stable")
        bins = np.array_split(order, BINS)
        answer["calibration_error"] = float(
            sum(abs(sure[rows].mean() - own[rows].mean()) * len(rows) for rows in bins) / len(own)
        )
        worse, better = np.array_split(own[order], 2)
        count = min(len(worse), len(better))
        gain = paired(better[-count:], worse[:count])
        answer["order"] = {"mean": gain.mean, "half": gain.half}
    return answer


def measure(folder: Path, draw: int, options: argparse.Namespace) -> dict[str, Any]:
    """One draw."""
    kept = folder / f"draw-{draw}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    place = folder / f"draw-{draw}"
    job = Job(configured(place / "run", hide(place, draw, options.hidden), options))
    started = time.monotonic()
    with job.lock():
        job.begin()
        job.build()
        summary = job.complete()
    truth = {row["id"]: row for row in pq.read_table(SCENES / "target.parquet").to_pylist()}
    found = {
        half: compared(summary["check"][half], *of_hidden(job, half, truth)) for half in HALVES
    }
    result = {"draw": draw, "seconds": time.monotonic() - started, **found}
    job.close()
    write_whole(kept, json.dumps(result, indent=1))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where everything is kept")
    parser.add_argument("--draws", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--hidden", type=int, default=300, help="rows that lack each half")
    parser.add_argument("--check", type=int, default=150, help="pairs checked for each half")
    parser.add_argument("--n", type=int, default=4, help="candidates a row")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    options = parser.parse_args()
    draws = []
    for draw in range(options.first, options.first + options.draws):
        draws.append(measure(options.folder, draw, options))
        print(json.dumps(draws[-1], indent=1), flush=True)
    for half in HALVES:
        within, agrees = (sum(one[half][name] for one in draws) for name in ("within", "agrees"))
        print(f"{half}: the truth is within the check's interval in {within} of {len(draws)} draws")
        print(f"{half}: check and truth differ by less than both intervals in {agrees}")


if __name__ == "__main__":
    main()
