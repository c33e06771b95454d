"""Datasets of one row a caption: rows that share a picture are hidden, tested and counted together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.config.config import load_config
from pipeline.evaluation.experiment import Experiment
from pipeline.evaluation.tuning.tuner import Tuner
from pipeline.storage.errors import ConfigError
from tests import quick_worlds

PICTURES, CAPTIONS = 24, 5


def captioned() -> list[dict[str, Any]]:
    """Rows of one caption each, five a picture."""
    return [
        quick_worlds.row(number)
        | {"id": f"{number:02d}-{n}", "text": f"{quick_worlds.row(number)['text']}, told {n}"}
        for number in range(PICTURES)
        for n in range(CAPTIONS)
    ]


def world(folder: Path, **evaluation: Any) -> Path:
    quick_worlds.write(folder / "data" / "a.parquet", captioned())
    settings = {"rates": [0.5], "downstream": None, "duplicate_cosine": 2} | evaluation
    return quick_worlds.config(folder, evaluation=settings)


@pytest.mark.parametrize("missing", ["mixed", "image", "text"])
def test_what_is_hidden_in_a_row_is_seen_in_no_other(tmp_path: Path, missing: str) -> None:
    draw = Experiment(load_config(world(tmp_path, missing=missing))).draw()
    masked = draw.world.masks([0.5])[0]
    rows = draw.world.rows
    assert abs(len(masked.hidden) / len(draw.world.train) - 0.5) < 0.1
    seen = pq.read_table(masked.path).to_pylist()
    pictures = {row["image"]["bytes"] for row in seen if row["image"]}
    texts = {row["text"] for row in seen if row["text"]}
    for row_id, half in masked.hidden.items():
        assert (
            rows[row_id].image not in pictures
            if half == "image"
            else rows[row_id].texts[0] not in texts
        )
    tested = {rows[row_id].image for row_id in draw.world.test}
    assert not tested & {rows[row_id].image for row_id in draw.world.train}
    assert len(draw.world.test) == CAPTIONS * len(tested)


def test_a_published_mask_leaves_out_the_rows_that_show_what_it_hides(tmp_path: Path) -> None:
    place = world(tmp_path, mask="mask.csv")
    lines = [f"{number:02d}-0,test" for number in range(4)]
    lines += [f"{number:02d}-1,image" for number in range(4, 8)]
    lines += [f"{number:02d}-2,text" for number in range(8, 12)]
    (tmp_path / "mask.csv").write_text("\n".join(["id,missing", *lines]))
    found = Experiment(load_config(place)).run(["rag4dmc"])
    draw = Experiment(load_config(place)).draw()
    assert draw.world.test == [f"{number:02d}-0" for number in range(4)]
    kept = [i for i in draw.world.train if int(i[:2]) < 8]
    assert kept == [f"{number:02d}-1" for number in range(4, 8)]
    # A caption is its row's own: the picture's others may stay.
    assert len(draw.world.train) == 4 + 16 * CAPTIONS
    assert found.facts["left_out"] == 8 * (CAPTIONS - 1)


def test_intervals_count_the_rows_of_a_picture_as_one(tmp_path: Path) -> None:
    config = load_config(world(tmp_path, missing="text"))
    found = Experiment(config).run(["direct"])
    figure = found.value(0.5, "direct", group="direct", missing="text", measure="cosine")
    assert figure is not None and figure.half is not None
    rows = next(
        values for key, values in found._rows.items() if "cosine" in key and "direct" in key
    )
    by_picture: dict[str, list[float]] = {}
    for (_, row_id), value in rows.items():
        by_picture.setdefault(row_id[:2], []).append(value)
    means = [np.mean(values) for values in by_picture.values()]
    error = np.std(means, ddof=1) / len(means) ** 0.5
    from scipy.stats import t

    assert figure.half == pytest.approx(t.ppf(0.975, len(means) - 1) * error)


def test_rows_of_a_picture_choose_together_or_confirm_together(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", captioned())
    tuner = Tuner(load_config(quick_worlds.config(tmp_path)), share=0.85)
    tuned = tuner.run()
    assert tuned.rows == 100
    chosen = {row_id[:2] for row_id, own in zip(tuner.ids, tuner.choosing, strict=True) if own}
    others = {row_id[:2] for row_id, own in zip(tuner.ids, tuner.choosing, strict=True) if not own}
    assert len(chosen) == len(others) == 10 and not chosen & others
    few = Tuner(load_config(quick_worlds.config(tmp_path)), share=0.5)
    with pytest.raises(ConfigError, match="share no picture or text; 60 hidden ones have 12"):
        few.run()
