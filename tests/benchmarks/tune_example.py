"""What tuning gains on pairs that it did not see: the example world's incomplete rows.

    python -m tests.benchmarks.tune_example FOLDER [--steps 10] [--paper]

`rag4dmc tune` sees the 200 complete pairs of the demo. Then the demo's 200 incomplete rows, whose
truth is in target.parquet, are completed by the config as it was and as tuned, and both are compared
row by row: the cosine of the example's half, and of the chosen half, to the hidden one, by the encoder
that selects and by the judge. With --paper the config starts from the paper's k = 10 and α = 0.5 in
place of `auto`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from kb.embeddings import Modality, opposite
from pipeline.check.intervals import paired
from pipeline.config.config import Config, load_config, make_config
from pipeline.dataset.images import decode
from pipeline.evaluation.changes import change
from pipeline.evaluation.tuning.tuner import ALPHA, K, Tuner
from pipeline.job import Job
from pipeline.models.candidates import CandidateStore

SCENES = Path(__file__).parents[2] / "examples" / "scenes"
JUDGE = {"kind": "open_clip", "model": "local-dir:checkpoints/encoder-judge"}


def demo() -> dict[str, Any]:
    """The demo's config as values, to be changed."""
    return load_config(SCENES / "dmc.yaml").model_dump(mode="json")


def configured(folder: Path, name: str, changes: dict[str, Any], steps: int) -> Config:
    """The demo's config with changes, its output in a folder of its own."""
    values = demo()
    values |= {"output": str(folder / name), "export": []}
    values["evaluation"]["judge"] = JUDGE
    values["run"]["embeddings"] = str(folder / "embeddings")
    values["image_generator"] |= {"steps": steps, "batch_size": 64}
    return make_config(change(values, changes), SCENES)


def completed(config: Config, memory: CandidateStore) -> Job:
    """The demo's rows completed."""
    job = Job(config)
    job.models.store = memory
    with job.lock():
        job.begin()
        job.build()
        job.complete()
    return job


def qualities(job: Job, judge: Job, truth: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By figure and row: cosine to the hidden half of the example's and of the chosen half."""
    found: dict[str, dict[str, float]] = {}
    rows = [r for r in job.completed().to_table().to_pylist() if r["status"] == "completed"]
    halves: tuple[Modality, Modality] = ("text", "image")
    for missing in halves:
        own = [row for row in rows if row["missing"] == missing]
        ids = [row["id"] for row in own]
        true = [_half(truth[row_id], missing) for row_id in ids]
        made = [_half(row, missing) for row in own]
        targets = judge.models.embed(true, missing)
        chosen = np.einsum("nd,nd->n", judge.models.embed(made, missing), targets)
        found[f"{missing}: chosen, by the judge"] = dict(zip(ids, chosen.tolist(), strict=True))
        observed = opposite(missing)
        queries = job.models.embed([_half(row, observed) for row in own], observed)
        knowledge = job.knowledge.checked()
        hits = knowledge.retriever.search(queries, observed, ids, m=1).rows[:, 0]
        similar = np.asarray(knowledge.embeddings[missing], np.float32)[hits]
        similar /= np.linalg.norm(similar, axis=1, keepdims=True)
        exact = np.einsum("nd,nd->n", similar, job.models.embed(true, missing))
        found[f"{missing}: example, by the encoder"] = dict(zip(ids, exact.tolist(), strict=True))
    return found


def _half(row: dict[str, Any], modality: str) -> Any:
    return [row["text"]] if modality == "text" else decode(row["image"]["bytes"])


def measure(folder: Path, steps: int, held: dict[str, Any]) -> dict[str, Any]:
    """Tune, complete as it was and as tuned, and compare; `held` is what it starts from."""
    tuned = Tuner(configured(folder, "tune", held, steps), share=0.4).run()
    truth = {row["id"]: row for row in pq.read_table(SCENES / "target.parquet").to_pylist()}
    memory = CandidateStore(folder / "candidates.sqlite")
    jobs = [
        completed(configured(folder, name, changes, steps), memory)
        for name, changes in (("before", held), ("after", held | tuned.changes))
    ]
    judge = Job(make_config(demo() | {"output": str(folder / "judge"), "encoder": JUDGE}, SCENES))
    before, after = (qualities(job, judge, truth) for job in jobs)
    gains = {}
    for figure in before:
        both = sorted(before[figure].keys() & after[figure].keys())
        gain = paired([after[figure][i] for i in both], [before[figure][i] for i in both])
        mean = float(np.mean([before[figure][i] for i in both]))
        gains[figure] = {"rows": len(both), "before": mean, "gain": gain.mean, "half": gain.half}
    return {
        "hidden": tuned.rows,
        "changes": tuned.changes,
        "told": {" ".join(t.settings): t.told() for t in tuned.trials},
        "unseen": gains,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where everything is kept")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    parser.add_argument("--paper", action="store_true", help="start from k = 10, α = 0.5")
    options = parser.parse_args()
    held = {K: 10, ALPHA: 0.5} if options.paper else {}
    print(json.dumps(measure(options.folder, options.steps, held), indent=1, default=float))


if __name__ == "__main__":
    main()
