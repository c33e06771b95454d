from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kb.alignment import (
    AlignmentSettings,
    OrthogonalAlignment,
    procrustes,
)
from kb.alignment.csls import mutual_neighbours
from kb.embeddings import normalise
from tests.kb.worlds import World, small_turn


def unit(count: int, dimension: int, seed: int) -> np.ndarray:
    return normalise(np.random.default_rng(seed).standard_normal((count, dimension)))


def test_procrustes_finds_a_known_rotation() -> None:
    turn = small_turn(12, 2.5, seed=1)
    source = unit(100, 12, 14)
    np.testing.assert_allclose(procrustes(source, source @ turn), turn, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1e-2, 0.3])
def test_procrustes_is_the_minimum_over_orthogonal_matrices(gamma: float) -> None:
    source, target = unit(40, 5, 15), unit(40, 5, 16)
    found = procrustes(source, target, gamma)
    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-5)

    def loss(turn: np.ndarray) -> float:
        pull = gamma * len(source) * np.sum((turn - np.eye(5)) ** 2)
        return float(np.sum((target - source @ turn) ** 2) + pull)

    nearby = [found @ small_turn(5, 0.05, seed) for seed in range(40)]
    assert all(loss(found) < loss(turn) for turn in nearby)


def test_a_large_gamma_gives_the_identity() -> None:
    source, target = unit(40, 6, 17), unit(40, 6, 18)
    np.testing.assert_allclose(procrustes(source, target, 1e6), np.eye(6), atol=1e-4)


@pytest.mark.parametrize("gamma", [-1.0, float("nan")])
def test_a_gamma_that_is_no_weight_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be 0 or larger"):
        procrustes(unit(4, 3, 0), unit(4, 3, 1), gamma)


def test_auto_keeps_the_identity_where_there_is_no_shift() -> None:
    kept = 0
    for seed in range(10):
        world = World(seed)
        fitted = OrthogonalAlignment(random_state=seed).fit(
            world.draw(400)["image"], world.draw(900)["image"]
        )
        kept += fitted.gamma_ is None
    assert kept == 10


def test_auto_undoes_a_rotation() -> None:
    world = World(3)
    internal, external = world.draw(800)["image"], world.draw(1500)["image"]
    turn = small_turn(48, 0.6, seed=2)
    fitted = OrthogonalAlignment().fit(internal, external @ turn)
    before = np.einsum("nd,nd->n", external @ turn, external).mean()
    after = np.einsum("nd,nd->n", fitted.transform(external @ turn), external).mean()
    assert fitted.gamma_ is not None
    assert after > before + 0.5 * (1 - before)
    assert [entry["gamma"] for entry in fitted.gains_] == [0.0, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1]
    assert fitted.history_[-1]["pairs"] > 100


def test_gamma_zero_is_plain_procrustes_on_the_mutual_neighbours() -> None:
    internal, external = unit(200, 8, 20), unit(300, 8, 21)
    settings = AlignmentSettings(gamma=0.0, rounds=1)
    fitted = OrthogonalAlignment(settings).fit(internal, external)
    pairs = mutual_neighbours(external, internal, 10)
    expected = procrustes(external[pairs[:, 0]], internal[pairs[:, 1]])
    np.testing.assert_allclose(fitted.rotation_, expected, atol=1e-5)


def test_rounds_end_when_the_rotation_stands_still() -> None:
    world = World(4, spread=0.3, noise=0.02)
    internal = world.draw(600)["image"]
    turn = small_turn(48, 0.2, seed=3)
    fitted = OrthogonalAlignment(AlignmentSettings(gamma=0.0)).fit(internal, internal @ turn)
    assert len(fitted.history_) < 10
    assert fitted.history_[-1]["change"] < 1e-3
    np.testing.assert_allclose(fitted.transform(internal @ turn), internal, atol=1e-3)


def test_large_sides_are_sampled_and_the_seed_repeats_the_fit() -> None:
    world = World(5)
    internal, external = world.draw(500)["text"], world.draw(700)["text"]
    settings = AlignmentSettings(gamma=1e-3, sample=200)
    once = OrthogonalAlignment(settings, random_state=7).fit(internal, external)
    again = OrthogonalAlignment(settings, random_state=7).fit(internal, external)
    other = OrthogonalAlignment(settings, random_state=8).fit(internal, external)
    np.testing.assert_array_equal(once.rotation_, again.rotation_)
    assert not np.array_equal(once.rotation_, other.rotation_)


def test_dimensions_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="got 8 and 9"):
        OrthogonalAlignment().fit(unit(20, 8, 0), unit(20, 9, 0))


def test_a_saved_alignment_transforms_alike(tmp_path: Path) -> None:
    internal, external = unit(100, 8, 22), unit(150, 8, 23)
    fitted = OrthogonalAlignment(AlignmentSettings(gamma=1e-2)).fit(internal, external)
    fitted.save(tmp_path / "image")
    loaded = OrthogonalAlignment.load(tmp_path / "image")
    np.testing.assert_array_equal(loaded.transform(external), fitted.transform(external))
    assert loaded.history_ == fitted.history_
