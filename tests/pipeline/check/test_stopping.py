"""What would have been chosen of fewer candidates is what the selector chooses, and draws end where gains do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.check.candidates import Candidates
from pipeline.check.stopping import Gains, stopped
from pipeline.check.stopping import fit as fit_gains
from pipeline.completion.confidence import EVIDENCE
from pipeline.completion.stopping import Stopping
from selection.judgement import Judged
from selection.scales import Standards
from selection.scoring import Selector
from selection.settings import CaptionScoring, ScoringSettings

COUNT = 8
ROUNDS = (2, 3, 4, 6, 8)


def embeddings(generator: np.random.Generator, count: int = COUNT) -> np.ndarray:
    found = generator.normal(size=(count, 6)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def fit(some: list[Candidates]) -> Stopping | None:
    return fit_gains([Gains.of(pair, 2, 0) for pair in some])


def row(judged: Judged, alike: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """A checked pair as it is kept."""
    assert judged.chosen is not None
    check = {
        "candidates": truth.tolist(),
        "likeness": alike.tolist(),
        "looks": [
            {
                "place": judged.chosen,
                "chosen": float(truth[judged.chosen]),
                "evidence": [0.25] * len(EVIDENCE),
            }
        ],
    }
    told = {"attempt": 1, "second_look": False}
    candidates = [vars(one) | told for one in judged.judgements]
    return {"completion": {"candidates": candidates, "chosen": judged.chosen}, "check": check}


@pytest.mark.parametrize(
    "settings", [{}, {"agreement": 0.0}, {"agreement": 2.0}, {"floor_cosine": 0.1}]
)
def test_of_a_prefix_is_chosen_what_the_selector_chooses_of_it(settings: dict[str, Any]) -> None:
    generator, scoring = np.random.default_rng(0), CaptionScoring(**settings)
    selector = Selector(ScoringSettings(caption=scoring), pseudo_texts=embeddings(generator, 30))
    compared = 0
    for _ in range(40):
        # Some texts come twice, and some are none.
        numbers = generator.integers(0, 6, COUNT)
        texts = ["" if n == 5 else f"thing {n}" for n in numbers]
        rows, target = embeddings(generator)[numbers], embeddings(generator)[0]
        rows[numbers == 5] = 0
        judged = selector.judge_captions(texts, rows, target)
        if judged.chosen is None:
            continue
        pair = Candidates(row(judged, rows @ rows.T, rows @ target), scoring, Standards())
        for count in range(1, COUNT):
            own = selector.judge_captions(texts[:count], rows[:count], target)
            found = pair.first(count)
            assert (found is None) == (own.chosen is None)
            if found is None or own.chosen is None:
                continue
            compared += 1
            best = own.judgements[own.chosen]
            assert found.place == own.chosen
            told = dict(zip(EVIDENCE, found.evidence, strict=True))
            for name in ("score", "cosine", "agreement", "hubness"):
                assert told[name] == pytest.approx(getattr(best, name), abs=1e-5)
            rivals = [one.score for one in own.judgements if one.score not in (None, best.score)]
            if rivals:
                assert told["margin"] == pytest.approx(best.score - max(rivals), abs=1e-5)
            assert told["example"] == 0.25
    assert compared > 150


def pairs(count: int, noise: float, seed: int = 0) -> list[Candidates]:
    """Pairs whose scores differ by as much as they are spread, and tell the truth but for noise."""
    scoring, found = CaptionScoring(agreement=0.0, hubness=0.0), []
    selector = Selector(ScoringSettings(caption=scoring))
    for number in range(count):
        generator = np.random.default_rng((seed, number))
        spread = 0.3 if number % 2 else 0.01
        cosines = 0.5 + spread * np.clip(generator.normal(size=COUNT), -1.5, 1.5)
        rows = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)
        judged = selector.judge_captions(
            [f"thing {n}" for n in range(COUNT)], rows, np.array([1, 0], np.float32)
        )
        truth = (
            cosines + generator.normal(0, noise, COUNT)
            if noise < 1
            else generator.normal(size=COUNT)
        )
        found.append(Candidates(row(judged, rows @ rows.T, truth), scoring, Standards()))
    return found


def test_rows_whose_draws_differ_are_drawn_for_and_others_are_not() -> None:
    rule = fit(pairs(100, 0.01))
    assert rule is not None and rule.rows == 100
    drawn = np.array([stopped(pair, rule, ROUNDS, 0.02).drawn for pair in pairs(200, 0.01, seed=1)])
    assert drawn[0::2].mean() < 2.5 and drawn[1::2].mean() > 3


def test_the_expected_gain_is_what_one_more_gains_on_other_pairs() -> None:
    rule = fit(pairs(300, 0.05))
    assert rule is not None
    expected, found = [], []
    for pair in pairs(600, 0.05, seed=2):
        for count in (2, 3, 5):
            now, then = pair.first(count), pair.first(count + 1)
            assert now is not None and then is not None
            expected.append(rule.of(pair.state(np.arange(count), count)))
            found.append(then.truth - now.truth)
    order = np.argsort(expected)
    for part in np.array_split(order, 4):
        assert np.mean(np.array(expected)[part]) == pytest.approx(
            np.mean(np.array(found)[part]), abs=0.012
        )


def test_where_scores_say_nothing_of_the_truth_two_are_enough() -> None:
    rule = fit(pairs(200, 1.0))
    assert rule is not None
    drawn = [stopped(pair, rule, ROUNDS, 0.05).drawn for pair in pairs(100, 1.0, seed=1)]
    assert np.mean(drawn) < 3


def test_a_higher_price_never_draws_more_and_few_pairs_draw_all() -> None:
    own = pairs(100, 0.01)
    rule = fit(own)
    counts = [
        [stopped(pair, rule, ROUNDS, price).drawn for pair in own]
        for price in (0.0, 0.005, 0.02, 9.0)
    ]
    assert all(np.all(np.diff(of_row) <= 0) for of_row in np.array(counts).T)
    assert set(counts[-1]) == {2}
    assert [stopped(pair, None, ROUNDS, 9.0).drawn for pair in own] == [COUNT] * 100
    assert rule is not None and Stopping.parse(rule.dump()) == rule
