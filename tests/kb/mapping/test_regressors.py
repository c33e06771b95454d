from __future__ import annotations

import numpy as np

from kb.embeddings import normalise
from kb.mapping import MappingSettings
from kb.mapping.regressors import Start
from kb.mapping.ridge import RIDGE_PENALTIES, Ridge
from tests.kb.worlds import World

QUICK = MappingSettings(epochs=30, width=64)


def test_the_start_is_the_mean_shift_where_dimensions_agree() -> None:
    pairs = World(0).draw(50)
    start = Start().fit(pairs)
    shifted = pairs["image"] + pairs["text"].mean(axis=0) - pairs["image"].mean(axis=0)
    np.testing.assert_allclose(
        start.predict(pairs["image"], "image"), normalise(shifted), atol=1e-6
    )


def test_the_start_is_the_mean_where_dimensions_differ() -> None:
    pairs = World(0, dimensions=(48, 20)).draw(50)
    start = Start().fit(pairs)
    mean = normalise(pairs["text"].mean(axis=0, keepdims=True))
    expected = np.tile(mean, (50, 1))
    np.testing.assert_allclose(start.predict(pairs["image"], "image"), expected, atol=1e-6)


def test_ridge_picks_the_penalty_of_least_leave_one_out_error() -> None:
    pairs = World(1, dimensions=(9, 7)).draw(40)
    ridge = Ridge().fit(pairs)
    errors = []
    for penalty in RIDGE_PENALTIES:
        total = 0.0
        for row in range(40):
            rest = np.arange(40) != row
            x, y = pairs["image"][rest].astype(float), pairs["text"][rest].astype(float)
            # One row less moves the means; the closed form holds them, so does this twin.
            mean_x, mean_y = pairs["image"].mean(0), pairs["text"].mean(0)
            x, y = x - mean_x, y - mean_y
            weights = np.linalg.solve(x.T @ x + penalty * np.eye(9), x.T @ y)
            total += np.sum(
                (pairs["text"][row] - mean_y - (pairs["image"][row] - mean_x) @ weights) ** 2
            )
        errors.append(total)
    assert ridge.penalties["image"] == RIDGE_PENALTIES[int(np.argmin(errors))]
    x = pairs["image"].astype(float) - pairs["image"].mean(0)
    y = pairs["text"].astype(float) - pairs["text"].mean(0)
    expected = np.linalg.solve(x.T @ x + ridge.penalties["image"] * np.eye(9), x.T @ y)
    np.testing.assert_allclose(ridge.weights["image"], expected, atol=1e-4)
