"""Fine-tuning on completed data: seeded, kept by content, and the same for every variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.evaluation.claims import paper_way
from pipeline.evaluation.downstream import Downstream, Pairs, Ranks
from pipeline.evaluation.records import Record
from pipeline.evaluation.results import Results
from pipeline.evaluation.settings import DownstreamSettings
from pipeline.evaluation.tables import comparison_table, downstream_table
from tests.worlds import CHECKPOINTS, EMOJI

SETTINGS = DownstreamSettings(steps=3, batch_size=8, device="cpu")


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    return pq.read_table(EMOJI / "target.parquet").slice(0, 24).to_pylist()


def pairs_of(rows: list[dict[str, Any]]) -> Pairs:
    return Pairs([r["image"]["bytes"] for r in rows], [(r["text"],) for r in rows])


@pytest.fixture(scope="module")
def downstream(pairs: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Downstream:
    folder = tmp_path_factory.mktemp("downstream")
    start = CHECKPOINTS / "encoder-judge"
    return Downstream(SETTINGS, start, "revision", pairs_of(pairs[:8]), folder)


def test_a_seed_gives_the_same_ranks_and_another_seed_costs_only_itself(
    downstream: Downstream, pairs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = pairs_of(pairs[8:])
    first = downstream.measure(train, 2)
    assert first.image_to_text.shape == first.text_to_image.shape == (2, 8)
    fresh = Downstream(
        SETTINGS, downstream.start, "revision", downstream.test, downstream.folder / "fresh"
    )
    again = fresh.measure(train, 1)
    np.testing.assert_array_equal(again.image_to_text, first.image_to_text[:1])
    trained = []
    original = downstream._fine_tune
    monkeypatch.setattr(
        downstream, "_fine_tune", lambda *given: trained.append(given[-1]) or original(*given)
    )
    more = downstream.measure(train, 3)
    assert trained == [2]
    np.testing.assert_array_equal(more.text_to_image[:2], first.text_to_image)


def test_other_data_or_another_start_is_another_fine_tuning(
    downstream: Downstream, pairs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    nothing = (np.zeros(8, int), np.zeros(8, int))
    for made in (
        downstream,
        Downstream(SETTINGS, downstream.start, "other", downstream.test, downstream.folder),
    ):
        monkeypatch.setattr(made, "_fine_tune", lambda *g: trained.append(g[-1]) or nothing)
        made.measure(pairs_of(pairs[9:]), 1)
    assert trained == [0, 0]
    with pytest.raises(ValueError, match="at least 2 pairs; got 1"):
        downstream.measure(pairs_of(pairs[:1]), 1)


def test_training_on_the_test_pairs_is_learned(
    downstream: Downstream, pairs: list[dict[str, Any]], tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"steps": 40})
    test = pairs_of(pairs[:24])
    learning = Downstream(settings, downstream.start, "revision", test, tmp_path)
    before, after = learning.untrained(), learning.measure(test, 1)
    assert (after.image_to_text == 0).mean() > (before.image_to_text == 0).mean()
    assert (after.text_to_image == 0).mean() > 0.9


def measured(gap: float) -> Results:
    """Made-up ranks of 400 test pairs: complete is right by `gap` more often than drop."""
    results = Results({"name": "made up"})
    generator = np.random.default_rng(0)
    for label, share in (("drop", 0.4), ("rag4dmc", 0.4 + 0.8 * gap), ("complete", 0.4 + gap)):
        wrong = [generator.permutation(400) >= round(share * 400) for _ in range(10)]
        ranks = np.array(wrong, dtype=int).reshape(2, 5, 400)
        results.add_ranks(0.7, label, Ranks(ranks[0], ranks[1]), rows=100)
    return results


def test_the_way_and_the_orderings_follow_from_the_ranks() -> None:
    results = measured(0.2)
    way = results.way(0.7, "rag4dmc")
    assert way is not None and way.mean == pytest.approx(0.8)
    assert results.certain(0.7)
    found = results.compare(0.7, "rag4dmc", "drop")
    assert found is not None
    assert found.over_seeds.mean == pytest.approx(0.16)
    assert found.over_rows.mean == pytest.approx(0.16)
    assert found.over_rows.half > found.over_seeds.half
    assert found.holds == "yes"
    reverse = results.compare(0.7, "drop", "complete")
    assert reverse is not None and reverse.holds == "reversed"
    recall = results.recall(0.7, "drop", "image to text", 1)
    assert recall is not None and recall.mean == pytest.approx(0.4)
    table = downstream_table(results, 0.7)
    assert table is not None and "which exceeds its interval" in table.note
    assert table.rows[1][-2:] == ("80% ± 0%", "84%"), table.rows
    assert comparison_table(results) is not None


def test_without_a_gap_the_measure_does_not_count() -> None:
    results = measured(0.0)
    assert not results.certain(0.7)
    assert results.way(0.7, "rag4dmc") is None
    table = downstream_table(results, 0.7)
    assert table is not None and "these figures do not count" in table.note


def test_a_gain_that_another_test_set_might_not_have_says_so() -> None:
    results = Results({})
    worse = np.ones((5, 100), dtype=int)
    better = worse.copy()
    better[:, :2] = 0
    results.add_ranks(0.7, "rag4dmc", Ranks(better, better), rows=100)
    results.add_ranks(0.7, "direct", Ranks(worse, worse), rows=100)
    found = results.compare(0.7, "rag4dmc", "direct")
    assert found is not None and found.over_seeds.half == 0
    assert pytest.approx(found.over_rows.mean) == 0.02 and found.over_rows.low < 0
    assert found.holds == "yes, on these pairs"
    back = results.compare(0.7, "direct", "rag4dmc")
    assert back is not None and back.holds == "reversed, on these pairs"


def test_test_pairs_of_several_draws_count_together() -> None:
    results = Results({"draws": 2})
    generator = np.random.default_rng(0)
    found = {
        (draw, label): generator.integers(0, 3, (2, 5, size))
        for draw, size in enumerate((40, 60))
        for label in ("direct", "rag4dmc")
    }
    for (draw, label), ranks in found.items():
        results.add_ranks(0.7, label, Ranks(*ranks), rows=10 * (draw + 1), draw=draw)
    hits = {key: (ranks == 0).mean(axis=0) for key, ranks in found.items()}
    own = results.mean_recall(0.7, "rag4dmc")
    assert own is not None
    together = np.concatenate([hits[0, "rag4dmc"], hits[1, "rag4dmc"]], axis=1)
    np.testing.assert_allclose(own, together.mean(axis=1))
    by_draw = results.draw_gains(0.7, "rag4dmc", "direct")
    for draw in range(2):
        gain = hits[draw, "rag4dmc"].mean() - hits[draw, "direct"].mean()
        assert by_draw[draw] == pytest.approx(gain)
    compared = results.compare(0.7, "rag4dmc", "direct")
    assert compared is not None
    assert compared.over_rows.mean == pytest.approx(0.4 * by_draw[0] + 0.6 * by_draw[1])
    table = comparison_table(results)
    assert table is not None and table.headings[-2:] == ("by draw", "holds")
    trained = results.value(0.7, "rag4dmc", measure="trained on")
    assert trained is not None and trained.value == 15


def test_intervals_of_draws_shrink_as_of_independent_means() -> None:
    results = Results({"draws": 2})
    for draw, (value, half) in enumerate(((0.5, 0.03), (0.7, 0.04))):
        figure = {"group": "direct", "missing": "text", "measure": "cosine"}
        results.add_direct(0.7, "direct", {"a": value}, **figure, value=value, half=half, draw=draw)
        results.add_direct(0.7, "nearest", {"a": 0.1}, **figure, value=0.1, half=0.0, draw=draw)
    pooled = results.value(0.7, "direct", measure="cosine")
    assert pooled is not None
    assert (pooled.value, pooled.half) == (pytest.approx(0.6), pytest.approx(0.025))
    gain = results.direct_gain(0.7, "direct", "nearest", "text", "cosine")
    assert gain is not None and gain.mean == pytest.approx(0.5)


def test_the_papers_way_is_what_its_text_says() -> None:
    way = paper_way()
    assert way["rag4dmc"] == pytest.approx(0.84, abs=0.005)
    assert way["drop"] == 0 and way["complete"] == 1


def test_records_of_rows_stand_beside_those_of_seeds() -> None:
    results = measured(0.2)
    trained = results.value(0.7, "drop", group="rows")
    assert trained == Record(0.7, "drop", "rows", "trained on", 100)
    table = results.table()
    assert table.filter(table["group"].to_numpy() == "downstream").num_rows == 3 * 2 * 5 * 3
