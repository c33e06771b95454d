"""Ridge regression corrected by what it misses nearby, against its formulas by loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kb.embeddings import MODALITIES, Modality, normalise, opposite
from kb.mapping import CrossModalMapping, MappingSettings
from kb.mapping.attended import Attended, External
from kb.mapping.moments import Moments
from kb.mapping.ridge import Ridge
from tests.kb.worlds import World

Halves = dict[Modality, np.ndarray]


def bent(count: int, seed: int = 0) -> Halves:
    """Pairs whose text is another linear view of the picture on either side of a plane."""
    generator = np.random.default_rng(seed)
    views = np.random.default_rng(99).normal(size=(2, 12, 10))
    image = generator.normal(size=(count, 12))
    text = np.where(image[:, :1] > 0, image @ views[0], image @ views[1])
    return {"image": normalise(image), "text": normalise(text)}


def external_of(pairs: Halves) -> External:
    moments = Moments.of([pairs], {m: pairs[m].shape[1] for m in MODALITIES})
    return External(moments, pairs, np.arange(len(pairs["image"])))


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_what_is_missed_without_a_group_is_what_a_fit_without_it_misses(weight: float) -> None:
    pairs, other = bent(30), bent(40, seed=1)
    groups = np.arange(40) // 2
    ridge = Ridge(external_of(other).moments.scaled(weight)).fit(pairs)
    own = ridge.left_out(pairs, "image")
    theirs = ridge.left_out(other, "image", groups, weight)
    weights = np.concatenate([np.ones(30), np.full(40, weight)])
    both = {m: np.concatenate([pairs[m], other[m]]).astype(float) for m in MODALITIES}

    def missed(gone: np.ndarray) -> np.ndarray:
        # As the closed form has it, the means stay those of all pairs, and so does their number.
        x = both["image"] - ridge.means["image"]
        y = both["text"] - ridge.means["text"]
        left = np.where(gone, 0, weights)
        design = np.concatenate([x, np.ones((70, 1))], axis=1)
        penalty = ridge.penalties["image"] * np.eye(13)
        penalty[12, 12] = 0
        fit = np.linalg.solve((design.T * left) @ design + penalty, (design.T * left) @ y)
        return (y - design @ fit)[gone]

    for row in (0, 7, 29):
        np.testing.assert_allclose(own[row], missed(np.arange(70) == row)[0], atol=2e-3)
    for group in (0, 11):
        gone = np.concatenate([np.zeros(30, bool), groups == group])
        np.testing.assert_allclose(theirs[groups == group], missed(gone), atol=2e-3)


def test_a_prediction_is_the_regressions_and_what_it_misses_near_the_query() -> None:
    pairs, other, unseen = bent(60), bent(50, seed=1), bent(10, seed=2)
    external = external_of(other)
    model = Attended(external, 0.3).fit(pairs)
    ridge = Ridge(external.moments.scaled(0.3)).fit(pairs)
    for source in MODALITIES:
        experts = np.concatenate([pairs[source], other[source]])
        missed = np.concatenate(
            [ridge.left_out(pairs, source), ridge.left_out(other, source, weight=0.3)]
        )
        expected = []
        for query in unseen[source]:
            cosines = np.array([float(query @ z) for z in experts])
            near = np.argsort(-cosines)[:64]
            attention = np.exp((cosines[near] - cosines.max()) / model.temperatures[source])
            correction = attention @ missed[near] / attention.sum()
            start = ridge.unscaled(query[None], source)[0]
            expected.append(start + model.gains[source] * correction)
        np.testing.assert_allclose(
            model.predict(unseen[source], source), normalise(np.array(expected)), atol=2e-3
        )


def test_where_the_relation_bends_attention_predicts_better_and_is_chosen() -> None:
    pairs, unseen = bent(600), bent(300, seed=5)
    ridge, model = Ridge().fit(pairs), Attended().fit(pairs)
    for source in MODALITIES:
        truth = unseen[opposite(source)]
        own = np.einsum("nd,nd->n", model.predict(unseen[source], source), truth).mean()
        plain = np.einsum("nd,nd->n", ridge.predict(unseen[source], source), truth).mean()
        assert model.gains[source] > 0
        assert own > plain + 0.01
    settings = MappingSettings(epochs=5, width=16)
    mapping = CrossModalMapping(settings).fit(pairs["image"], pairs["text"])
    assert mapping.chosen_["image"] == "attended"


def test_copies_of_a_row_are_no_experts_for_it() -> None:
    # Halves that have nothing to do with each other: only a copy could predict them.
    world = World(6)
    pairs = {"image": world.draw(80)["image"], "text": world.draw(80)["text"]}
    doubled = {m: np.repeat(rows, 2, axis=0) for m, rows in pairs.items()}
    groups = np.repeat(np.arange(80), 2)
    known = Attended().fit(doubled, 0, groups)
    blind = Attended().fit(doubled)
    for source in MODALITIES:
        assert known.gains[source] < 0.5 < blind.gains[source]


def test_attention_shares_the_fit_of_the_regression_beside_it() -> None:
    pairs, unseen = bent(80), bent(5, seed=3)
    shared = Attended(ridge=Ridge().fit(pairs)).fit(pairs)
    alone = Attended().fit(pairs)
    for source in MODALITIES:
        np.testing.assert_array_equal(
            shared.predict(unseen[source], source), alone.predict(unseen[source], source)
        )


def test_external_pairs_are_experts_of_a_saved_mapping_too(tmp_path: Path) -> None:
    pairs, other, unseen = bent(60), bent(50, seed=1), bent(10, seed=2)
    settings = MappingSettings(method="attended", external=0.3)
    mapping = CrossModalMapping(settings)
    mapping.fit(pairs["image"], pairs["text"], external=external_of(other))
    assert mapping.chosen_ == {"image": "attended+0.3", "text": "attended+0.3"}
    mapping.save(tmp_path / "mapping")
    loaded = CrossModalMapping.load(tmp_path / "mapping")
    alone = CrossModalMapping(settings).fit(pairs["image"], pairs["text"])
    assert alone.chosen_ == {"image": "attended", "text": "attended"}
    for source in MODALITIES:
        found = mapping.map(unseen[source], source=source)
        np.testing.assert_allclose(loaded.map(unseen[source], source=source), found, atol=1e-6)
        assert np.abs(alone.map(unseen[source], source=source) - found).max() > 0.01
