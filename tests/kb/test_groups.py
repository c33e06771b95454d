"""Rows that share a picture or a text are held out together, and none finds another of its group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kb.embeddings import MODALITIES, Modality, normalise
from kb.filtering import ClusterFilter, FilterSettings
from kb.filtering.clusters import joint
from kb.groups import content_groups, deal, halves
from kb.index import EmbeddingIndex
from kb.knowledge_base import KnowledgeBase
from kb.mapping import CrossModalMapping, MappingSettings
from kb.mapping.contest import out_of_fold
from kb.mapping.regressors import Start
from kb.mapping.ridge import RIDGE_PENALTIES, Ridge
from kb.mapping.shared_mlp import SharedMLP
from kb.pairs import Pairs
from kb.retrieval import FusionRetriever, RetrievalSettings
from kb.retrieval.leave_one_out import LeaveOneOut, select_retrieval
from tests.kb.worlds import World, as_pairs, quick


def captioned(world: World, pictures: int, sentences: int = 5) -> dict[Modality, np.ndarray]:
    """One row a sentence: rows in turn share a picture."""
    drawn = world.draw(pictures)
    texts = np.repeat(drawn["text"], sentences, axis=0)
    noise = world.generator.standard_normal(texts.shape) / texts.shape[1] ** 0.5
    return {
        "image": np.repeat(drawn["image"], sentences, axis=0),
        "text": normalise(texts + 0.3 * noise),
    }


def test_rows_that_share_a_picture_or_a_text_are_one_group() -> None:
    pictures = ["a", "b", "a", "c", "d", "e"]
    texts = ["one", "two", "three", "two", "four", "five"]
    assert content_groups(pictures, texts).tolist() == [0, 1, 0, 1, 2, 3]
    assert content_groups(np.array([7, 8, 7]), np.array([1, 2, 3])).tolist() == [0, 1, 0]
    assert content_groups([], []).tolist() == []
    with pytest.raises(ValueError, match="got 2 and 1"):
        content_groups(["a", "b"], ["one"])


def test_a_label_joins_nothing_but_a_picture_always_does() -> None:
    labels = ["cat", "dog"] * 50
    assert len(set(content_groups(range(100), labels))) == 100
    assert len(set(content_groups(labels, range(100)))) == 2


def test_texts_that_chain_everything_together_join_nothing() -> None:
    # Row i and i + 1 share a text in turn with a picture.
    rows = np.arange(200)
    pictures, texts = rows // 2, (rows + 1) // 2
    np.testing.assert_array_equal(content_groups(pictures, texts), pictures)


@pytest.mark.parametrize("size", [1, 5])
def test_groups_are_dealt_whole_and_evenly(size: int) -> None:
    groups = np.random.default_rng(1).permutation(np.arange(300) // size)
    fold = deal(groups, 5, np.random.default_rng(0))
    assert np.bincount(fold).tolist() == [60] * 5
    here, there = halves(groups, np.random.default_rng(0))
    assert len(here) == len(there) == 150
    assert sorted([*here, *there]) == list(range(300))
    assert not set(groups[here]) & set(groups[there])
    assert all(len(set(fold[groups == group])) == 1 for group in range(300 // size))


def test_rows_of_their_own_are_dealt_as_by_a_permutation() -> None:
    order = np.random.default_rng(3).permutation(11)
    np.testing.assert_array_equal(deal(np.arange(11), 5, np.random.default_rng(3)), order % 5)
    here, there = halves(np.arange(11), np.random.default_rng(3))
    np.testing.assert_array_equal([*here, *there], order)
    assert len(here) == 5


def test_one_group_is_one_half() -> None:
    here, there = halves(np.zeros(7, int), np.random.default_rng(0))
    assert (len(here), len(there)) == (7, 0)


class Suspicious(Start):
    """A mapping that refuses to predict what it was fitted on."""

    def fit(self, pairs, random_state=0, groups=None):
        self.seen = {m: {row.tobytes() for row in rows} for m, rows in pairs.items()}
        assert len(groups) == len(pairs["image"])
        return super().fit(pairs)

    def predict(self, rows, source):
        assert not {row.tobytes() for row in rows} & self.seen[source]
        return super().predict(rows, source)


def test_no_prediction_out_of_fold_has_seen_the_picture_of_its_row() -> None:
    rows = captioned(World(0), 60)
    every = np.arange(300)
    arguments = (rows, np.repeat(np.arange(60), 5), 5, np.random.default_rng(0), 0, every)
    found = out_of_fold({"start": lambda _: Suspicious()}, *arguments)
    assert np.isfinite(found["start"]["image"]).all()
    with pytest.raises(AssertionError):
        out_of_fold({"start": lambda _: Suspicious()}, rows, np.arange(300), *arguments[2:])


def test_ranks_are_counted_among_one_row_a_group() -> None:
    rows = captioned(World(0), 60)
    groups = np.repeat(np.arange(60), 5)
    fitted = CrossModalMapping(MappingSettings(method="ridge")).fit(
        rows["image"], rows["text"], groups
    )
    expected = float(np.mean(1 / np.arange(1, 61)))
    assert fitted.scores_["image"]["chance"]["reciprocal_rank"] == pytest.approx(expected)


def test_few_pictures_are_few_pairs_however_many_their_texts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = captioned(World(0), 31)
    fitted = CrossModalMapping().fit(rows["image"], rows["text"], np.repeat(np.arange(31), 5))
    assert fitted.chosen_ == {"image": "start", "text": "start"}
    assert "only 31 complete pairs that share no picture or text (fewer than 32)" in caplog.text


def test_ridge_leaves_a_group_out_whole_to_pick_its_penalty() -> None:
    rows = captioned(World(1, dimensions=(9, 7)), 20, 3)
    rows = {m: r[:-1] for m, r in rows.items()}
    groups = np.repeat(np.arange(20), 3)[:-1]
    ridge = Ridge().fit(rows, groups=groups)
    x = rows["image"].astype(float) - rows["image"].mean(0)
    y = rows["text"].astype(float) - rows["text"].mean(0)
    errors = []
    for penalty in RIDGE_PENALTIES:
        total = 0.0
        for group in range(20):
            rest = groups != group
            # An intercept of its own, as `Ridge` allows for by 1/n.
            gram = x.T @ x + penalty * np.eye(9)
            own = x[~rest] @ np.linalg.solve(gram, x[~rest].T) + 1 / len(x)
            residuals = y[~rest] - x[~rest] @ np.linalg.solve(gram, x.T @ y)
            total += np.sum(np.linalg.solve(np.eye(len(own)) - own, residuals) ** 2)
        errors.append(total)
    assert ridge.penalties["image"] == RIDGE_PENALTIES[int(np.argmin(errors))]
    # Without groups the copies of a picture speak for a smaller penalty.
    assert Ridge().fit(rows).penalties["image"] < ridge.penalties["image"]


def test_the_network_stops_by_groups_that_it_does_not_learn_from() -> None:
    groups = np.repeat(np.arange(40), 5)
    held, used = SharedMLP._held_out(200, groups)
    assert len(held) == 20
    assert not set(groups[held]) & set(groups[used])
    assert sorted([*held.tolist(), *used.tolist()]) == list(range(200))


def test_the_filter_measures_by_halves_that_share_no_picture() -> None:
    world = World(0)
    rows = captioned(world, 80)
    both = joint(rows["image"], rows["text"])
    groups = np.repeat(np.arange(80), 5)
    settings = FilterSettings(instance="neighbours")
    by_picture = ClusterFilter(settings).fit(both, groups=groups)
    assert len(by_picture.evidence_["splits"]) == 3
    contrast = ClusterFilter().fit(both, groups=groups)
    # Halves that share pictures look alike, and ask strangers to be as near.
    assert contrast.tau_inst_ < ClusterFilter().fit(both).tau_inst_
    few = ClusterFilter().fit(both[:75], groups=groups[:75])
    assert few.evidence_["splits"] == []


def retriever_of(rows: dict[Modality, np.ndarray], pairs: Pairs) -> FusionRetriever:
    indexes = {m: EmbeddingIndex.build(rows[m]) for m in MODALITIES}
    mapping = CrossModalMapping(MappingSettings(method="ridge"))
    mapping.fit(rows["image"], rows["text"], pairs.groups())
    ids = pairs.table["id"].to_pylist()
    return FusionRetriever(
        rows, indexes, ids, mapping, RetrievalSettings(k=10, alpha=0.5), digests=pairs.digests
    )


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_query_without_its_halves_finds_no_row_of_its_picture_and_as_many_others(
    modality: Modality,
) -> None:
    world = World(0)
    rows = captioned(world, 60)
    # Two pictures of one text as well.
    rows["text"][7] = rows["text"][290]
    pairs = as_pairs(rows, "dataset")
    retriever = retriever_of(rows, pairs)
    ids = pairs.table["id"].to_pylist()
    plain = retriever.search(rows[modality], modality, ids, m=10)
    found = retriever.search(rows[modality], modality, ids, m=10, without=pairs.digests)
    picture = np.arange(300) // 5
    assert (picture[plain.rows] == picture[:, None]).any()
    assert (found.rows >= 0).all()
    assert not (picture[found.rows] == picture[:, None]).any()
    assert 290 not in found.rows[7] and 7 not in found.rows[290]
    # What is left out leaves its place to the next.
    expected = [r for r in retriever.search(rows[modality][:1], modality, m=30).rows[0] if r >= 5]
    near = np.argsort(-(rows[modality][0] @ rows[modality].T), kind="stable")
    assert set(found.rows[0]) == {r for r in near if r >= 5 and r != 0} & set(near[:15])
    assert set(found.rows[0]) <= set(expected)


def test_a_text_that_many_rows_have_is_no_reason_to_leave_them_out() -> None:
    rows = World(0).draw(100)
    rows["text"][:50] = rows["text"][0]
    pairs = as_pairs(rows, "dataset")
    found = retriever_of(rows, pairs).search(
        rows["image"], "image", pairs.table["id"].to_pylist(), m=10, without=pairs.digests
    )
    assert (found.rows[:50] < 50).any()


def test_k_and_alpha_are_measured_without_rows_of_the_same_picture() -> None:
    rows = captioned(World(0), 80)
    pairs = as_pairs(rows, "dataset")
    retriever = retriever_of(rows, pairs)
    retriever.settings = RetrievalSettings(mode="fusion", consensus=0)
    ids = pairs.table["id"].to_pylist()
    pseudo = retriever.mapping.out_of_fold_
    flattered = select_retrieval(LeaveOneOut(retriever, rows, ids), pseudo)[1]
    honest = select_retrieval(LeaveOneOut(retriever, rows, ids, pairs.digests), pseudo)[1]
    assert min(e["image"] for e in flattered) > max(e["image"] for e in honest) + 0.05


def test_a_base_of_five_rows_a_picture_is_measured_by_picture(tmp_path: Path) -> None:
    world = World(0)
    rows = captioned(world, 80)
    recipe = quick(retrieval=RetrievalSettings())
    kb = KnowledgeBase.build(tmp_path / "kb", as_pairs(rows, "dataset"), [], recipe)
    evidence = kb.manifest["retrieval"]["evidence"]
    unseen = captioned(world, 40)
    found = kb.retriever.search(unseen["image"], "image")
    truth = np.einsum("nd,nd->n", kb.embeddings["text"][found.rows[:, 0]], unseen["text"]).mean()
    measured = max(entry["image"] for entry in evidence)
    assert measured == pytest.approx(float(truth), abs=0.06)
