"""Fréchet distance against scipy's matrix root, and NIQE of too small pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import sqrtm

from pipeline.evaluation.measures.direct import frechet_distance, mean_niqe


def test_the_frechet_distance_is_the_formula() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(60, 5)) @ generator.normal(size=(5, 5))
    b = generator.normal(size=(40, 5)) + 0.5
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(first @ second).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_too_few_rows_give_no_frechet_distance() -> None:
    rows = np.random.default_rng(0).normal(size=(19, 10))
    assert frechet_distance(rows, np.concatenate([rows, rows])) is None


def test_pictures_too_small_for_niqe_give_none() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    picture = Image.fromarray(noise)
    assert mean_niqe([picture.resize((32, 32))], None) is None
    value = mean_niqe([picture, picture.resize((32, 32))], None)
    assert value is not None and value > 0
    assert mean_niqe([], None) is None
