"""Halves that can't be measured are left out of an evaluation and counted; they do not end it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generators.base import Candidate
from pipeline.config.config import load_config
from pipeline.dataset.settings import INTERNAL
from pipeline.evaluation.experiment import Experiment
from pipeline.evaluation.measures.fine_tuning import decodes
from pipeline.evaluation.report.direct import direct_table
from pipeline.evaluation.tuning.tuner import Tuner
from pipeline.job import Job
from tests import quick_worlds
from tests.pipeline.evaluation.evaluated import world
from tests.quick_parts import QuickEncoder, QuickPainter

WIDE = (48, 32)


class WidePainter(QuickPainter):
    """Draws larger than the dataset's pictures are, and some of another shape."""

    def _draw(self, request: Any, seed: int, blank: bool) -> Candidate:
        made = super()._draw(request, seed, blank)
        assert made.image is not None
        size = WIDE if "7" in request.row_id else (64, 64)
        return replace(made, image=made.image.resize(size))


class ChoosyJudge(QuickEncoder):
    """Errs at wide pictures, and at one of the dataset's captions."""

    def encode(self, items: Iterable[Any], modality: str) -> np.ndarray:
        held = list(items)
        if any(getattr(one, "size", None) == WIDE or str(one).endswith("edge 3") for one in held):
            raise RuntimeError("not this one")
        return super().encode(held, modality)


def _judged(folder: Path, **evaluation: Any) -> Path:
    """What is generated has more pixels than the dataset's pictures may have; the judge is choosy."""
    return world(
        folder,
        {
            "dataset": {"path": "data", "max_pixels": 2000},
            "image_generator": {"kind": f"{__name__}:WidePainter"},
        },
        judge={"kind": f"{__name__}:ChoosyJudge"},
        missing="image",
        **evaluation,
    )


def test_what_the_judge_cannot_take_is_counted_and_moves_no_other_pair(tmp_path: Path) -> None:
    downstream = {"kind": "heads", "steps": 3, "seeds": 2, "device": "cpu"}
    place = _judged(tmp_path, downstream=downstream)
    experiment = Experiment(load_config(place))
    results = experiment.run(["rag4dmc", "drop"])
    lost = results.value(0.5, "rag4dmc", group="rows", measure="not measured")
    made = results.value(0.5, "rag4dmc", group="rows", measure="completed")
    trained = results.value(0.5, "rag4dmc", group="rows", measure="trained on")
    assert lost is not None and made is not None and trained is not None
    assert 0 < lost.value < made.value
    views = experiment.draw().world.views
    assert trained.value == len(experiment.draw().world.train) - lost.value
    table = direct_table(results, 0.5)
    assert table is not None and f"Left out: {lost.value:.0f} halves" in table.note
    # The judge left a pair out that the other encoder has: the others keep their own rows.
    ids = list(views.places)
    assert len(ids) == 59 and len(views.embedded[INTERNAL]) == 60
    same = [views.embeddings_of(ids, "image", judge=judge) for judge in (False, True)]
    np.testing.assert_array_equal(*same)


@pytest.mark.slow
def test_tuning_takes_what_the_judge_cannot_take_for_nothing(tmp_path: Path) -> None:
    tuned = Tuner(load_config(_judged(tmp_path)), share=0.6).run()
    assert any("lambda2" in name for trial in tuned.trials for name in trial.settings)


def test_halves_that_are_no_pictures_have_no_embedding(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(4, 0, 0))
    job = Job(load_config(quick_worlds.config(tmp_path)))
    picture = quick_worlds.row(0)["image"]["bytes"]
    broken = [picture, b"no picture", picture[: len(picture) // 2], b""]
    embeddings, held = job.embeddings.of_halves("image", broken, 10**6)
    assert held.tolist() == [True, False, False, False]
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx([1, 0, 0, 0], abs=1e-3)
    assert [decodes(data, 10**6) for data in broken] == held.tolist()


def test_pairs_whose_pictures_changed_since_the_scan_are_left_out(tmp_path: Path) -> None:
    place = world(tmp_path, {"dataset": {"path": "data"}})
    folder = tmp_path / "data"
    (folder / "a.parquet").unlink()
    lines = []
    for number in range(60):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)).save(
            folder / f"{number}.png"
        )
        lines.append(
            f'{{"file_name": "{number}.png", "text": "square {number}", "id": "{number}"}}'
        )
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    draw = Experiment(load_config(place)).draw()
    assert len(draw.world.views.places) == 60
    (folder / "7.png").unlink()
    (folder / "8.png").write_bytes((folder / "9.png").read_bytes())
    left = {*draw.world.test, *draw.world.train}
    assert len(left) == 58 and not {"7", "8"} & left
    assert draw.world.facts()["left_out"] == 2
