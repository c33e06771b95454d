"""Confidence is calibrated on pairs that it was not fitted on, and orders rows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.check.calibrating import FEWEST, Checked, calibrate, fit
from pipeline.completion.confidence import EVIDENCE, Calibration


def world(count: int, seed: int = 0, noise: float = 0.05) -> Checked:
    """Pairs whose truth is a monotone function of one of the evidence, with noise; hubness unknown."""
    generator = np.random.default_rng(seed)
    evidence = generator.normal(size=(count, len(EVIDENCE)))
    evidence[:, EVIDENCE.index("hubness")] = np.nan
    truth = 0.5 + 0.3 * np.tanh(evidence[:, 0]) + generator.normal(0, noise, count)
    return Checked(evidence, truth, np.full(count, 0.4))


def test_expected_is_what_is_found_of_other_pairs() -> None:
    calibration, fresh = fit(world(400)), world(4000, seed=1)
    sure = calibration.of(fresh.evidence)
    expected = np.array([one.expected for one in sure])
    gain = np.array([one.gain for one in sure])
    for low, high in ((0.2, 0.4), (0.4, 0.6), (0.6, 0.8)):
        part = (expected >= low) & (expected < high)
        assert part.sum() > 100
        assert fresh.truth[part].mean() == pytest.approx(expected[part].mean(), abs=0.03)
        assert (fresh.truth[part] > 0.4).mean() == pytest.approx(gain[part].mean(), abs=0.08)


def test_a_better_index_never_means_less() -> None:
    calibration = fit(world(120))
    evidence = np.zeros((50, len(EVIDENCE)))
    evidence[:, 0] = np.linspace(-4, 4, 50)
    expected = [one.expected for one in calibration.of(evidence)]
    assert np.all(np.diff(expected) >= 0) and expected[-1] > expected[0]


def test_the_error_told_is_that_of_other_pairs_not_of_those_fitted() -> None:
    pure = world(100, noise=0.0)
    noise = np.random.default_rng(5).normal(size=pure.evidence.shape)
    # Nothing that is known says anything: those fitted look ordered, others are not.
    blind = Checked(noise, pure.truth, pure.middle)
    found = calibrate(blind, 0)
    assert found is not None
    fitted = [one.expected for one in found.calibration.of(noise)]
    halves = np.array_split(blind.truth[np.argsort(fitted)], 2)
    assert halves[1].mean() - halves[0].mean() > 0.05
    assert abs(found.told["order"]["mean"]) < found.told["order"]["half"]
    known = calibrate(pure, 0)
    assert known is not None and known.told["error"] < 0.05
    assert known.told["order"]["mean"] > known.told["order"]["half"]
    assert sum(one["rows"] for one in known.told["curve"]) == known.told["rows"] == 100


def test_the_error_of_chance_is_that_of_a_calibration_that_is_right() -> None:
    errors, chances = [], []
    for seed in range(20):
        found = calibrate(world(200, seed=seed, noise=0.2), 0)
        assert found is not None
        errors.append(found.told["error"])
        chances.append(found.told["chance"])
    assert np.mean(errors) == pytest.approx(np.mean(chances), rel=0.35)


def test_few_pairs_have_no_calibration() -> None:
    assert calibrate(world(FEWEST - 1), 0) is None


def test_it_is_the_same_after_it_was_kept() -> None:
    calibration = fit(world(80))
    again = Calibration.parse(json.loads(json.dumps(calibration.dump())))
    evidence = world(20, seed=2).evidence
    assert again.of(evidence) == calibration.of(evidence)
