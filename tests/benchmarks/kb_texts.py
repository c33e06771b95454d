"""Do generated texts gain by how the example was retrieved? On the example world, row by row.

    python -m tests.benchmarks.kb_texts FOLDER [--rows 400] [--seeds 2]

Of the target's pairs 200 are complete, and so many others lack their text. They are completed with
the paper's retrieval and mapping on internal pairs alone, and with the defaults, by the example's
captioner and by `nearest`; compared are the cosine to the hidden text by the judge, CIDEr-D, and the
share that is exactly the hidden one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.check.captions import cider_d
from pipeline.check.intervals import paired
from pipeline.config.config import Config, make_config
from pipeline.evaluation.changes import change
from pipeline.job import Job
from pipeline.models.candidates import CandidateStore
from tests.benchmarks.tune_example import JUDGE, SCENES, completed, demo

COMPLETE = 200
PAPER = {
    "knowledge_base.mapping.external": 0,
    "knowledge_base.retrieval": {"mode": "fusion", "k": 10, "alpha": 0.5, "consensus": 0},
}
WAYS: dict[str, dict[str, Any]] = {"paper": PAPER, "default": {}}
CAPTIONERS = ("blip2", "nearest")


def incomplete(folder: Path, rows: int, seed: int) -> dict[str, str]:
    """Writes complete pairs and rows without their text; the hidden texts, by id."""
    table = pq.read_table(SCENES / "target.parquet")
    order = np.random.default_rng(seed).permutation(len(table))[: COMPLETE + rows]
    drawn = table.take(pa.array(order))
    texts = drawn["text"].to_pylist()
    held = pa.array(texts[:COMPLETE] + [None] * rows, pa.string())
    place = drawn.column_names.index("text")
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(drawn.set_column(place, "text", held), folder / "rows.parquet")
    return dict(zip(drawn["id"].to_pylist()[COMPLETE:], texts[COMPLETE:], strict=True))


def configured(folder: Path, name: str, captioner: str, changes: dict[str, Any]) -> Config:
    values = demo()
    del values["image_generator"]
    values |= {"output": str(folder / name), "export": []}
    values["dataset"]["path"] = str(folder / "rows.parquet")
    values["run"]["embeddings"] = str(folder / "embeddings")
    if captioner == "nearest":
        values["captioner"] = {"kind": "nearest"}
        values["generation"] |= {"n": 1, "ungrounded": {"text": 0.0, "image": 0.0}}
    return make_config(change(values, changes), SCENES)


def measure(folder: Path, rows: int, seed: int) -> dict[str, dict[str, list[np.ndarray]]]:
    """Per captioner and figure, of every row: [with the paper's, with the default]."""
    hidden = incomplete(folder, rows, seed)
    memory = CandidateStore(folder / "candidates.sqlite")
    judge = Job(make_config(demo() | {"output": str(folder / "judge"), "encoder": JUDGE}, SCENES))
    truth = judge.models.embed([[text] for text in hidden.values()], "text")
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for captioner in CAPTIONERS:
        for way, changes in WAYS.items():
            job = completed(configured(folder, f"{captioner}-{way}", captioner, changes), memory)
            made = {row["id"]: row["text"] for row in job.completed().to_table().to_pylist()}
            texts = [made[row_id] or "" for row_id in hidden]
            like = np.einsum("nd,nd->n", judge.models.embed([[t] for t in texts], "text"), truth)
            figures = {
                "cosine by the judge": like,
                "CIDEr-D": cider_d(texts, [[text] for text in hidden.values()]),
                "exactly the hidden": np.array(
                    [text == true for text, true in zip(texts, hidden.values(), strict=True)], float
                ),
            }
            for name, values_ in figures.items():
                found.setdefault(captioner, {}).setdefault(name, []).append(values_)
            knowledge = job.knowledge.checked().manifest
            print(captioner, way, knowledge["mapping"]["chosen"],
                  {k: v for k, v in knowledge["retrieval"].items() if k != "evidence"}, flush=True)  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where everything is kept")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    draws = [measure(options.folder / str(s), options.rows, s) for s in range(options.seeds)]
    for captioner in CAPTIONERS:
        for figure in draws[0][captioner]:
            before, after = (
                np.concatenate([draw[captioner][figure][way] for draw in draws]) for way in (0, 1)
            )
            gain = paired(after.tolist(), before.tolist())
            print(f"{captioner}, {figure}: {before.mean():.3f} with the paper's retrieval, "
                  f"{gain.mean:+.3f} ± {gain.half:.3f} with the default (95 %), {len(before)} rows")  # fmt: skip


if __name__ == "__main__":
    main()
