"""Measures the terms of captions' scores (BLEU, hubness, agreement) on texts that were hidden.

    python -m tests.benchmarks.selection_captions [CONFIG] [--draws 0 1] [--n 10]

The candidates are those of `rag4dmc evaluate CONFIG` for the variant rag4dmc, drawn before or now. For
each setting the caption that it would choose is compared with the true one by chrF, by whether they are
the same, and by the cosine of the judge's embeddings, beside the best candidate (the oracle) and their
mean (chance). Gains are over the cosine alone; a row that is in several draws counts once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sacrebleu.metrics import CHRF

from kb.embeddings import normalise
from pipeline.config.config import load_config
from pipeline.evaluation.changes import derive
from pipeline.evaluation.experiment import Experiment
from selection.bleu import sentence_bleu
from selection.scoring import HUB_NEIGHBOURS

EXAMPLE = Path("examples/scenes/evaluate.yaml")
# One weight at a time, then the two that help together.
SETTINGS: dict[str, dict[str, float]] = {
    "cosine alone": {},
    **{f"BLEU {weight:g}": {"bleu": weight} for weight in (0.1, 0.5)},
    **{f"hubness {weight:g}": {"hubness": weight} for weight in (0.25, 0.5, 0.75)},
    **{f"agreement {weight:g}": {"agreement": weight} for weight in (0.1, 0.2, 0.3)},
    **{
        f"hubness 0.5, agreement {weight:g}": {"hubness": 0.5, "agreement": weight}
        for weight in (0.1, 0.2, 0.3, 0.4)
    },
}


@dataclass(frozen=True)
class Row:
    """The candidates that may be chosen for a row: terms of their scores, and what they are worth."""

    id: str
    terms: dict[str, np.ndarray]
    worth: dict[str, np.ndarray]

    def choose(self, weights: dict[str, float]) -> int:
        signs = {"hubness": -1.0}
        score = self.terms["cosine"] + sum(
            signs.get(name, 1.0) * weight * self.terms[name] for name, weight in weights.items()
        )
        return int(np.argmax(score))


def rows_of(experiment: Experiment, number: int) -> list[Row]:
    """Rows of one draw whose text was hidden."""
    draw = experiment.draw(number)
    (arm,) = draw.arms(["rag4dmc"])
    job = draw.runs.job_of(arm)
    models, judge = job.models, draw.world.views.judge.models.encoder
    hubs = job.knowledge.selector.pseudo_texts
    chrf = CHRF()
    found = []
    for row in job.completed().to_table().to_pylist():
        if row["missing"] != "text" or row["status"] != "completed":
            continue
        made = row["completion"]["candidates"]
        votes = [one for one in made if one["valid"] or one["reason"] == "duplicate"]
        valid = np.array([one["valid"] for one in votes])
        texts = [one["text"] for one in votes]
        embeddings = models.encoder.encode(texts, "text")
        cosines = embeddings @ embeddings.T
        near = np.sort(embeddings @ hubs.T, axis=1)[:, -HUB_NEIGHBOURS:].mean(axis=1)
        truth = draw.world.rows[row["id"]].texts
        true = draw.world.views.embeddings_of([row["id"]], "text", judge=True)[0]
        terms = {
            "cosine": np.array([one["cosine"] for one in votes]),
            "bleu": np.array([one["bleu"] or 0.0 for one in votes]),
            "hubness": near,
            "agreement": (cosines.sum(axis=1) - 1) / max(1, len(votes) - 1),
        }
        worth = {
            "chrF": np.array([chrf.sentence_score(text, truth).score / 100 for text in texts]),
            "right": np.array([sentence_bleu(t, truth, lowercase=True) > 0.999 for t in texts]),
            "judge": normalise(judge.encode(texts, "text")) @ true,
        }
        found.append(
            Row(
                row["id"],
                {name: values[valid] for name, values in terms.items()},
                {name: values[valid].astype(float) for name, values in worth.items()},
            )
        )
    return found


def by_row(rows: Sequence[Row], values: Sequence[float]) -> np.ndarray:
    """The mean of a figure over the draws that a row is in."""
    held: dict[str, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        held.setdefault(row.id, []).append(value)
    return np.array([np.mean(values) for values in held.values()])


def worth(rows: Sequence[Row], measure: str, weights: dict[str, float]) -> np.ndarray:
    """What the chosen candidates are worth, by row."""
    return by_row(rows, [row.worth[measure][row.choose(weights)] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", default=EXAMPLE)
    parser.add_argument("--draws", type=int, nargs="*")
    parser.add_argument("--n", type=int, help="candidates a row; the config's by default")
    options = parser.parse_args()
    config = load_config(options.config)
    if options.n is not None:
        config = derive(config, {"generation.n": options.n}, config.folder)
    experiment = Experiment(config)
    draws = range(config.evaluation.draws) if options.draws is None else options.draws
    rows = [row for number in draws for row in rows_of(experiment, number)]
    print(f"{len(rows)} rows in {len(draws)} draws, {len({row.id for row in rows})} different ones")
    for measure in ("chrF", "right", "judge"):
        best, mean = (
            by_row(rows, [over(row.worth[measure]) for row in rows]).mean()
            for over in (np.max, np.mean)
        )
        print(f"\n{measure}: oracle {best:.4f}, chance {mean:.4f}")
        base = worth(rows, measure, {})
        for name, weights in SETTINGS.items():
            got = worth(rows, measure, weights)
            gain = got - base
            half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
            print(f"  {name:28} {got.mean():.4f}, gain {gain.mean():+.4f} ± {half:.4f}")


if __name__ == "__main__":
    main()
