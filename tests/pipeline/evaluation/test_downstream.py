"""Fine-tuning on completed data: seeded, kept by content, and the same for every variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.evaluation.claims import paper_way
from pipeline.evaluation.downstream import Downstream, Pairs
from pipeline.evaluation.results import Record, Results
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
    from pipeline.evaluation.downstream import Ranks

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
    assert comparison_table(results.comparisons()) is not None


def test_without_a_gap_the_measure_does_not_count() -> None:
    results = measured(0.0)
    assert not results.certain(0.7)
    assert results.way(0.7, "rag4dmc") is None
    table = downstream_table(results, 0.7)
    assert table is not None and "these figures do not count" in table.note


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
