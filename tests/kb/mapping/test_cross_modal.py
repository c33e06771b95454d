from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from kb.embeddings import normalise
from kb.mapping import CrossModalMapping, MappingSettings, NoCompletePairs
from tests.kb.worlds import World

QUICK = MappingSettings(epochs=30, width=64)


def recall_at_5(predicted: np.ndarray, truth: np.ndarray) -> float:
    similarities = predicted @ truth.T
    own = similarities.diagonal()[:, None]
    return float(((similarities > own).sum(axis=1) < 5).mean())


@pytest.mark.parametrize("dimensions", [(48, 48), (48, 20)])
def test_the_chosen_mapping_predicts_pairs_that_it_never_saw(dimensions: tuple[int, int]) -> None:
    world = World(3, dimensions=dimensions)
    pairs, unseen = world.draw(400), world.draw(200)
    mapping = CrossModalMapping(QUICK).fit(pairs["image"], pairs["text"])
    for source, target in (("image", "text"), ("text", "image")):
        predicted = mapping.map(unseen[source], source=source, target=target)
        assert predicted.shape == unseen[target].shape
        np.testing.assert_allclose(np.linalg.norm(predicted, axis=1), 1, atol=1e-5)
        assert recall_at_5(predicted, unseen[target]) > 0.3
        assert not mapping.constant_[source]


def test_the_best_by_cross_validation_is_chosen_and_named() -> None:
    pairs = World(4, noise=0.6).draw(200)
    mapping = CrossModalMapping(QUICK).fit(pairs["image"], pairs["text"])
    for source in ("image", "text"):
        names = ("start", "ridge", "blend", "mlp")
        figures = {name: mapping.scores_[source][name]["log_rank"] for name in names}
        assert mapping.chosen_[source] == min(names, key=lambda name: figures[name])
        assert mapping.scores_[source]["ridge"]["standard_error"] > 0


def test_out_of_fold_predictions_do_not_know_their_row() -> None:
    pairs = World(5, noise=0.5).draw(60)
    mapping = CrossModalMapping(MappingSettings(method="ridge")).fit(pairs["image"], pairs["text"])
    assert mapping.out_of_fold_ is not None
    own = np.einsum("nd,nd->n", mapping.map(pairs["image"], source="image"), pairs["text"])
    unseen = np.einsum("nd,nd->n", mapping.out_of_fold_["image"], pairs["text"])
    assert unseen.mean() < own.mean()
    assert unseen.mean() == pytest.approx(mapping.scores_["image"]["ridge"]["cosine"], abs=1e-5)


def test_the_scores_are_ranks_of_the_true_half_by_loops() -> None:
    pairs = World(5, noise=0.5).draw(60)
    mapping = CrossModalMapping(MappingSettings(method="ridge")).fit(pairs["image"], pairs["text"])
    ranks = []
    for row in range(60):
        cosines = [float(mapping.out_of_fold_["image"][row] @ z) for z in pairs["text"]]
        ranks.append(1 + sum(c > cosines[row] for c in cosines))
    scores = mapping.scores_["image"]["ridge"]
    assert scores["reciprocal_rank"] == pytest.approx(np.mean([1 / r for r in ranks]), abs=1e-3)
    assert scores["recall_at_5"] == pytest.approx(np.mean([r <= 5 for r in ranks]), abs=0.02)
    assert scores["log_rank"] == pytest.approx(np.mean(np.log(ranks)), abs=0.02)
    assert scores["recall_at_10"] == pytest.approx(np.mean([r <= 10 for r in ranks]), abs=0.02)
    chance = np.mean([1 / r for r in range(1, 61)])
    assert mapping.scores_["image"]["chance"]["reciprocal_rank"] == pytest.approx(chance)
    assert mapping.scores_["image"]["mean"]["reciprocal_rank"] < 2 * chance


@pytest.mark.parametrize("dimensions", [(30, 30), (30, 20)])
def test_halves_that_have_nothing_in_common_make_the_mapping_constant(
    dimensions: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    world = World(6, dimensions=dimensions)
    with caplog.at_level(logging.WARNING):
        mapping = CrossModalMapping(QUICK).fit(world.draw(150)["image"], world.draw(150)["text"])
    assert mapping.constant_ == {"image": True, "text": True}
    assert "says nothing" in caplog.text


def test_fewer_than_32_pairs_get_the_start_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pairs = World(7).draw(31)
    with caplog.at_level(logging.WARNING):
        mapping = CrossModalMapping().fit(pairs["image"], pairs["text"])
    assert mapping.chosen_ == {"image": "start", "text": "start"}
    assert "only 31 complete pairs" in caplog.text


def test_one_pair_is_enough_to_go_on() -> None:
    pairs = World(7).draw(1)
    mapping = CrossModalMapping().fit(pairs["image"], pairs["text"])
    np.testing.assert_allclose(
        mapping.map(pairs["image"], source="image"), pairs["text"], atol=1e-5
    )


def test_no_pair_is_an_error_that_says_what_to_do() -> None:
    empty = np.empty((0, 8), np.float32)
    with pytest.raises(NoCompletePairs, match="needs rows with both an image and a text"):
        CrossModalMapping().fit(empty, empty)


def test_a_non_finite_embedding_is_refused() -> None:
    pairs = World(8).draw(40)
    pairs["text"][4, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        CrossModalMapping().fit(pairs["image"], pairs["text"])


def test_the_paper_variant_uses_the_mlp_alone() -> None:
    pairs = World(9).draw(80)
    mapping = CrossModalMapping(QUICK.model_copy(update={"method": "mlp"}))
    mapping.fit(pairs["image"], pairs["text"])
    assert mapping.chosen_ == {"image": "mlp", "text": "mlp"}


def test_the_blend_is_the_mean_of_the_start_and_the_network(tmp_path: Path) -> None:
    world = World(10, dimensions=(24, 24))
    pairs, unseen = world.draw(60), world.draw(20)
    fitted = {}
    for method in ("start", "blend", "mlp"):
        settings = QUICK.model_copy(update={"method": method})
        fitted[method] = CrossModalMapping(settings).fit(pairs["image"], pairs["text"])
    for source in ("image", "text"):
        start, blend, mlp = (m.map(unseen[source], source=source) for m in fitted.values())
        np.testing.assert_allclose(blend, normalise((start + mlp) / 2), atol=1e-6)
    assert fitted["blend"].losses_ == fitted["mlp"].losses_
    assert fitted["mlp"].losses_[-1] < fitted["mlp"].losses_[0]
    assert fitted["start"].losses_ == []


def test_the_contest_judges_a_blend_as_it_is_fitted() -> None:
    pairs = World(11, noise=0.6).draw(100)
    contest = CrossModalMapping(QUICK).fit(pairs["image"], pairs["text"])
    alone = CrossModalMapping(QUICK.model_copy(update={"method": "blend"}))
    alone.fit(pairs["image"], pairs["text"])
    for source in ("image", "text"):
        found, expected = contest.scores_[source]["blend"], alone.scores_[source]["blend"]
        assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("method", ["start", "ridge", "blend", "mlp"])
def test_a_saved_mapping_maps_alike(method: str, tmp_path: Path) -> None:
    pairs = World(10, dimensions=(24, 16)).draw(60)
    settings = QUICK.model_copy(update={"method": method})
    mapping = CrossModalMapping(settings).fit(pairs["image"], pairs["text"])
    mapping.save(tmp_path / "mapping")
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]
    loaded = CrossModalMapping.load(tmp_path / "mapping")
    for source in ("image", "text"):
        np.testing.assert_allclose(
            loaded.map(pairs[source], source=source),
            mapping.map(pairs[source], source=source),
            atol=1e-6,
        )
    assert loaded.scores_ == mapping.scores_
