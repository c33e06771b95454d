"""Fine-tuning on completed data: seeded, kept by content, and the same for every variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.config.evaluation import FineTuningSettings
from pipeline.evaluation.measures.downstream import Untouched
from pipeline.evaluation.measures.fine_tuning import FineTuning
from pipeline.evaluation.protocol.masked import Pairs
from tests.worlds import CHECKPOINTS, SCENES

SETTINGS = FineTuningSettings(steps=3, batch_size=8, device="cpu")


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    return pq.read_table(SCENES / "target.parquet").slice(0, 24).to_pylist()


def pairs_of(rows: list[dict[str, Any]]) -> Pairs:
    return Pairs([r["image"]["bytes"] for r in rows], [(r["text"],) for r in rows])


def untouched(rows: list[dict[str, Any]]) -> Untouched:
    return Untouched(pairs_of(rows), [row["id"] for row in rows])


@pytest.fixture(scope="module")
def downstream(pairs: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> FineTuning:
    folder = tmp_path_factory.mktemp("downstream")
    start = CHECKPOINTS / "encoder-judge"
    return FineTuning(SETTINGS, start, "revision", untouched(pairs[:8]), folder)


def test_a_seed_gives_the_same_ranks_and_another_seed_costs_only_itself(
    downstream: FineTuning, pairs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = pairs_of(pairs[8:])
    first = downstream.measure(train, 2)
    assert first.image_to_text.shape == first.text_to_image.shape == (2, 8)
    fresh = FineTuning(
        SETTINGS, downstream.start, "revision", downstream.test, downstream.folder / "fresh"
    )
    again = fresh.measure(train, 1)
    np.testing.assert_array_equal(again.image_to_text, first.image_to_text[:1])
    trained = []
    original = downstream.learn
    monkeypatch.setattr(
        downstream, "learn", lambda *given: trained.append(given[-1]) or original(*given)
    )
    more = downstream.measure(train, 3)
    assert trained == [2]
    np.testing.assert_array_equal(more.text_to_image[:2], first.text_to_image)


def test_other_data_or_another_start_is_another_fine_tuning(
    downstream: FineTuning, pairs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    nothing = (np.eye(8), np.eye(8))
    for made in (
        downstream,
        FineTuning(SETTINGS, downstream.start, "other", downstream.test, downstream.folder),
    ):
        monkeypatch.setattr(made, "learn", lambda *g: trained.append(g[-1]) or nothing)
        made.measure(pairs_of(pairs[9:]), 1)
    assert trained == [0, 0]
    with pytest.raises(ValueError, match="at least 2 pairs that can be read; got 1"):
        downstream.measure(pairs_of(pairs[:1]), 1)


def test_training_on_the_test_pairs_islearned(
    downstream: FineTuning, pairs: list[dict[str, Any]], tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"steps": 40})
    start = downstream.start
    learning = FineTuning(settings, start, "revision", untouched(pairs[:24]), tmp_path)
    before, after = learning.untrained(), learning.measure(pairs_of(pairs[:24]), 1)
    assert (after.image_to_text == 0).mean() > (before.image_to_text == 0).mean()
    assert (after.text_to_image == 0).mean() > 0.9
