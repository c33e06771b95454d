from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kb.alignment import AlignmentSettings
from kb.filtering import ClusterFilter, FilterSettings
from kb.filtering.clusters import joint
from kb.purification import purify
from tests.kb.worlds import World, together


def joined(pairs: dict) -> np.ndarray:
    return joint(pairs["image"], pairs["text"])


def test_joint_embeddings_average_the_two_cosines() -> None:
    pairs = World(0, dimensions=(48, 20)).draw(10)
    both = joined(pairs)
    expected = (pairs["image"] @ pairs["image"].T + pairs["text"] @ pairs["text"].T) / 2
    np.testing.assert_allclose(both @ both.T, expected, atol=1e-5)


@pytest.mark.parametrize(("instance", "tau_inst"), [("centroid", 0.5), ("neighbours", 0.75)])
def test_verdicts_follow_from_the_two_thresholds(instance: str, tau_inst: float) -> None:
    world = World(1)
    settings = FilterSettings(tau_cent=0.7, tau_inst=tau_inst, instance=instance)
    external = joined(together(world.draw(300), world.draw_noise(150)))
    internal = joined(world.draw(400))
    fitted = ClusterFilter(settings).fit(internal)
    found = fitted.predict(external)
    # From the formula, one row at a time, on the same centroids.
    for row, u in enumerate(external):
        own = int(np.argmax([u @ c for c in fitted.external_centroids_]))
        to_internal = [float(fitted.external_centroids_[own] @ c) for c in fitted.centroids_]
        s_cent = max(to_internal)
        s_inst = float(u @ fitted.centroids_[int(np.argmax(to_internal))])
        if instance == "neighbours":
            s_inst = float(np.mean(sorted((float(u @ v) for v in internal), reverse=True)[:10]))
        verdict = "cluster" if s_cent < 0.7 else "instance" if s_inst < tau_inst else "kept"
        assert found.verdict[row] == verdict
        assert found.centroid_similarity[row] == pytest.approx(s_cent, abs=1e-5)
        assert found.instance_similarity[row] == pytest.approx(s_inst, abs=1e-5)
    assert all(count > 0 for count in found.counts().values())
    assert sum(found.counts().values()) == 450


def test_the_default_figure_is_its_formula() -> None:
    world = World(1)
    internal = joined(world.draw(400))
    external = joined(together(world.draw(120), world.draw_noise(60)))
    # So many that a row of either side is compared with all of them, but for the halving.
    fitted = ClusterFilter(FilterSettings(neighbours=7)).fit(internal)
    found = fitted.predict(external)
    assert len(fitted.reference_) == 200
    assert len(fitted.own_reference_) == 180
    for row, u in enumerate(external):
        to_internal = sorted((float(u @ v) for v in fitted.reference_), reverse=True)
        others = (float(u @ v) for other, v in enumerate(external) if other != row)
        expected = np.mean(to_internal[:7]) - np.mean(sorted(others, reverse=True)[:7]) / 2
        assert found.instance_similarity[row] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("internal", "clusters"), [(20, 4), (800, 20), (5000, 50)])
def test_the_number_of_internal_clusters_is_the_root_of_half(internal: int, clusters: int) -> None:
    fitted = ClusterFilter(FilterSettings(tau_cent=0.5, tau_inst=0.5)).fit(
        joined(World(2).draw(internal))
    )
    assert len(fitted.centroids_) == clusters


@pytest.mark.parametrize(("count", "noise_dropped"), [(1000, 0.8), (200, 0.6)])
def test_auto_keeps_the_relevant_and_drops_the_noise(count: int, noise_dropped: float) -> None:
    kept, dropped = [], []
    for seed in range(5):
        world = World(seed)
        fitted = ClusterFilter(random_state=seed).fit(joined(world.draw(count)))
        verdicts = fitted.predict(joined(together(world.draw(700), world.draw_noise(300))))
        kept.append(verdicts.kept[:700].mean())
        dropped.append(1 - verdicts.kept[700:].mean())
    assert np.mean(kept) >= 0.9
    assert np.mean(dropped) >= noise_dropped


def test_auto_records_how_the_thresholds_came_about() -> None:
    fitted = ClusterFilter().fit(joined(World(3).draw(300)))
    splits = fitted.evidence_["splits"]
    assert len(splits) == 3
    assert all(split["passed"] >= 0.95 and 0 <= split["percentile"] <= 5 for split in splits)
    assert fitted.tau_cent_ == pytest.approx(np.mean([split["tau_cent"] for split in splits]))
    assert fitted.tau_inst_ == pytest.approx(np.mean([split["tau_inst"] for split in splits]))


@pytest.mark.parametrize("count", [1, 2, 10, 15])
def test_too_few_pairs_to_measure_by_drop_nothing(count: int) -> None:
    world = World(0)
    fitted = ClusterFilter().fit(joined(world.draw(count)))
    assert fitted.evidence_["splits"] == []
    assert fitted.predict(joined(world.draw(500))).kept.all()


def test_a_given_threshold_counts_however_few_the_pairs() -> None:
    world = World(0)
    internal, external = joined(world.draw(10)), joined(world.draw(500))
    by_cluster = ClusterFilter(FilterSettings(tau_cent=0.6)).fit(internal).predict(external)
    assert set(by_cluster.verdict) == {"kept", "cluster"}
    np.testing.assert_array_equal(by_cluster.kept, by_cluster.centroid_similarity >= 0.6)
    alone = FilterSettings(tau_inst=0.0)
    by_pair = ClusterFilter(alone).fit(internal).predict(external)
    np.testing.assert_array_equal(by_pair.kept, by_pair.instance_similarity >= 0)


def test_relevant_pairs_survive_from_the_first_internal_pairs_on() -> None:
    kept = {}
    for count in (1, 10, 16, 40):
        world = World(0)
        fitted = ClusterFilter().fit(joined(world.draw(count)))
        kept[count] = fitted.predict(joined(world.draw(500))).kept.mean()
    assert min(kept.values()) > 0.6


def test_clusters_follow_from_all_internal_rows_not_from_the_sample() -> None:
    world = World(2)
    internal = {m: np.asarray(rows) for m, rows in world.draw(1800).items()}
    settings = FilterSettings(sample=200, tau_cent=0.5, tau_inst=0.5)
    purified = purify(internal, world.draw(100), settings, AlignmentSettings(gamma=0.0))
    assert purified.evidence["filter"]["internal_clusters"] == 30


def test_the_same_seed_gives_the_same_verdicts() -> None:
    world = World(5)
    internal, external = joined(world.draw(300)), joined(world.draw(500))
    once = ClusterFilter(random_state=3).fit(internal).predict(external)
    again = ClusterFilter(random_state=3).fit(internal).predict(external)
    np.testing.assert_array_equal(once.verdict, again.verdict)


def test_another_dimension_is_refused() -> None:
    fitted = ClusterFilter().fit(joined(World(6).draw(100)))
    with pytest.raises(ValueError, match="dimension 96; got 68"):
        fitted.predict(joined(World(6, dimensions=(48, 20)).draw(50)))


def test_a_saved_filter_judges_alike(tmp_path: Path) -> None:
    world = World(7)
    fitted = ClusterFilter().fit(joined(world.draw(200)))
    external = joined(together(world.draw(100), world.draw_noise(100)))
    before = fitted.predict(external)
    fitted.save(tmp_path / "filter")
    after = ClusterFilter.load(tmp_path / "filter").judge([external[:30], external[30:]])
    np.testing.assert_array_equal(before.verdict, after.verdict)
