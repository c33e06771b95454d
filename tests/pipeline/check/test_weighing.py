"""The score's weights are learned from checked pairs, and used where they choose better ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.check import lessons, weighing
from pipeline.check.calibrating import FOLDS, folds
from pipeline.check.candidates import Candidates
from pipeline.completion.confidence import EVIDENCE
from pipeline.config.config import load_config
from pipeline.job import Job
from selection.scales import Standard, Standards
from selection.scoring import Selector
from selection.settings import CaptionScoring, ImageScoring, ScoringSettings
from tests import quick_worlds
from tests.pipeline.check.checked import PAIRS, checked
from tests.pipeline.check.varied import made, settings, world

AUTO = CaptionScoring(lambda2="auto", hubness="auto", agreement="auto")


def pairs(
    count: int, matters: dict[str, float], scoring: CaptionScoring = AUTO, seed: int = 0
) -> list[Candidates]:
    """Pairs of six candidates whose likeness to the truth is a sum of some terms, and noise."""
    return [
        Candidates(row, scoring, Standards())
        for row in (_row(np.random.default_rng((seed, n)), matters) for n in range(count))
    ]


def _row(generator: np.random.Generator, matters: dict[str, float]) -> dict[str, Any]:
    vectors = generator.normal(size=(6, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = vectors @ vectors.T
    values = {name: generator.uniform(0, 1, 6) for name in ("cosine", "bleu", "hubness")}
    values["agreement"] = (alike.sum(axis=1) - 1) / 5
    truth = sum(weight * values[name] for name, weight in matters.items())
    truth = truth + generator.normal(0, 0.02, 6) + generator.uniform(-0.5, 0.5)
    score = values["cosine"] - 0.5 * values["hubness"] + 0.2 * values["agreement"]
    shared = {"valid": True, "reason": None, "niqe": None, "attempt": 1, "second_look": False}
    candidates = [
        shared | {name: float(own[n]) for name, own in (values | {"score": score}).items()}
        for n in range(6)
    ]
    chosen = int(np.argmax(score))
    look = {"place": chosen, "chosen": float(truth[chosen]), "evidence": [0.0] * len(EVIDENCE)}
    check = {"candidates": truth.tolist(), "likeness": alike.tolist(), "looks": [look]}
    return {"completion": {"candidates": candidates, "chosen": chosen}, "check": check}


def test_weights_are_found_and_gain() -> None:
    own = pairs(100, {"cosine": 1.0, "bleu": 0.6, "hubness": -0.2, "agreement": 0.4})
    found = weighing.weigh(own, folds(100, 0))
    assert found is not None and found.told["used"] and found.whole is not None
    assert found.whole == pytest.approx(
        {"lambda2": 0.6, "hubness": 0.2, "agreement": 0.4}, abs=0.06
    )
    assert found.told["fixed"] == {"lambda2": 0.0, "hubness": 0.5, "agreement": 0.2}
    assert found.told["gain"]["mean"] > found.told["gain"]["half"] > 0


def test_weights_that_gain_nothing_are_told_and_not_used() -> None:
    own = pairs(100, {"cosine": 1.0, "hubness": -0.5, "agreement": 0.2})
    found = weighing.weigh(own, folds(100, 0))
    assert found is not None and found.whole is None and found.without == [None] * FOLDS
    assert found.told["fitted"]["hubness"] == pytest.approx(0.5, abs=0.05)
    assert abs(found.told["gain"]["mean"]) <= found.told["gain"]["half"]


def test_only_what_is_auto_is_learned_beside_what_is_set() -> None:
    scoring = CaptionScoring(lambda2="auto", hubness=0.5, agreement=0.2)
    own = pairs(100, {"cosine": 2.0, "bleu": 1.2, "hubness": -1.0, "agreement": 0.4}, scoring)
    assert weighing.fit(own) == pytest.approx({"lambda2": 0.6}, abs=0.05)
    assert weighing.weigh(pairs(100, {"cosine": 1.0}, CaptionScoring()), folds(100, 0)) is None
    assert weighing.weigh(own[:49], folds(49, 0)) is None


def test_a_term_never_counts_against_what_it_means_and_a_mute_cosine_leaves_all_as_it_is() -> None:
    own = pairs(100, {"cosine": 1.0, "bleu": -0.5, "hubness": 0.5})
    found = weighing.fit(own)
    assert found is not None and found["lambda2"] == found["hubness"] == 0
    assert weighing.fit(pairs(100, {"cosine": -1.0, "bleu": 0.5})) is None


@pytest.mark.parametrize("quality", [Standard(6.0, 2.0), None])
def test_scores_by_other_weights_are_those_of_the_selector(quality: Standard | None) -> None:
    generator = np.random.default_rng(3)
    scoring = ImageScoring(lambda2="auto")
    standards = Standards(Standard(0.3, 0.1), quality)
    images = generator.integers(0, 255, (4, 200, 200, 3)).astype(np.uint8)
    embeddings = generator.normal(size=(4, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    own = ScoringSettings(image=scoring)
    judged = Selector(own, standards).judge_images(images, embeddings, embeddings[0])
    row = {
        "completion": {
            "chosen": judged.chosen,
            "candidates": [
                {**vars(one), "attempt": 1, "second_look": False} for one in judged.judgements
            ],
        },
        "check": {
            "candidates": [0.0] * 4,
            "likeness": (embeddings @ embeddings.T).tolist(),
            "looks": [{"place": judged.chosen, "chosen": 0.0, "evidence": [0.0] * len(EVIDENCE)}],
        },
    }
    pair = Candidates(row, scoring, standards)
    again = Selector(own, standards).weighing("image", scoring.fixed({"lambda2": 1.3}))
    other = again.judge_images(images, embeddings, embeddings[0])
    for weight, found in ((0.3, judged), (1.3, other)):
        scores = [one.score for one in found.judgements]
        np.testing.assert_allclose(pair.scored({"lambda2": weight}), scores, atol=1e-6)
        weighed = pair.weighed({"lambda2": weight})
        np.testing.assert_allclose(weighed.scores(np.arange(4)), scores, atol=1e-6)
        assert weighed.chosen.place == found.chosen


def test_no_pair_is_judged_by_weights_that_were_fitted_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = pairs(100, {"cosine": 1.0, "bleu": 0.6})
    fitted: list[set[int]] = []
    real = weighing.fit

    def watched(some: list[Candidates]) -> Any:
        fitted.append({id(pair) for pair in some})
        return real(some)

    monkeypatch.setattr(weighing, "fit", watched)
    fold = folds(100, 0)
    found = weighing.weigh(own, fold)
    assert found is not None and len(fitted) == FOLDS + 1
    for number in range(FOLDS):
        assert not fitted[number] & {id(own[n]) for n in np.flatnonzero(fold == number)}
        assert len(fitted[number]) == 80
    assert len(fitted[FOLDS]) == 100


def test_a_job_scores_rows_by_what_its_check_has_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"hubness": 0.0, "agreement": 3.0}

    def learned(own: list[Candidates], fold: np.ndarray) -> weighing.Weighing:
        told = {"rows": len(own), "fixed": {}, "fitted": weights, "used": True}
        gain = {"gain": {"mean": 0.1, "half": 0.05}}
        return weighing.Weighing(weights, [weights] * FOLDS, told | gain)

    path = world(tmp_path, 4)
    quick_worlds.run(path)
    plain, before = made(path), checked(path, "text")
    monkeypatch.setattr(lessons.weighing, "weigh", learned)
    path = settings(tmp_path, 4, selection={"caption": {"hubness": "auto", "agreement": "auto"}})
    _, summary = quick_worlds.run(path)
    # The check itself is scored by the fixed weights, and stands.
    assert {i: p["check"] for i, p in checked(path, "text").items()}.keys() == before.keys()
    assert "learned weights gain +0.100 ± 0.050, used" in summary["check"]["text"]["told"]
    changed = 0
    for row_id, row in made(path).items():
        own, held = row["completion"]["candidates"], plain[row_id]["completion"]["candidates"]
        assert [one["text"] for one in own] == [one["text"] for one in held]
        valid = [one for one in own if one["valid"]]
        for one in valid:
            assert one["score"] == pytest.approx(one["cosine"] + 3 * one["agreement"], abs=1e-5)
        best = max(valid, key=lambda one: one["score"])
        assert row["text"] == best["text"]
        changed += row["text"] != plain[row_id]["text"]
    assert changed
    held = Job(load_config(path)).check.learned("text")
    assert held is not None and held["weights"] == weights
    assert summary["check"]["text"]["similarity"]["mean"] != pytest.approx(
        np.mean([pair["check"]["chosen"] for pair in before.values()]), abs=1e-6
    )
    assert len(before) == PAIRS
