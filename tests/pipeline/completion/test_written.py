"""Generated pictures are judged, kept and told of as they are written."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from flows.cli import app
from generators.base import Candidate, Generated
from pipeline.advice.estimate import estimate
from pipeline.completion.written import as_written
from pipeline.config.config import load_config
from pipeline.dataset.decoding import decode
from pipeline.dataset.encoding import ImageFormat
from pipeline.job import CANDIDATES
from selection.scoring import Selector
from tests import quick_worlds


def photograph(side: int = 400) -> Image.Image:
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg")[:side, :side])


@pytest.mark.parametrize(
    ("settings", "named", "said"),
    [
        ({}, "WEBP", "webp, quality 90"),
        ({"lossless": True}, "WEBP", "webp, lossless"),
        ({"format": "jpeg", "quality": 95}, "JPEG", "jpeg, quality 95"),
        ({"format": "png"}, "PNG", "png"),
    ],
)
def test_a_picture_is_seen_as_it_is_read_back(
    settings: dict[str, Any], named: str, said: str
) -> None:
    format, image = ImageFormat(**settings), photograph()
    seen, data = format.written(image)
    stored = data or format.encode(image)
    read = Image.open(io.BytesIO(stored))
    assert read.format == named
    assert np.array_equal(np.asarray(read.convert("RGB")), np.asarray(seen))
    assert (data is None) == format.exact == np.array_equal(np.asarray(seen), np.asarray(image))
    assert str(format) == said
    if not format.exact:
        assert len(stored) < 0.4 * len(ImageFormat(lossless=True).encode(image))


def test_a_quality_that_counts_for_nothing_is_refused() -> None:
    for values in ({"format": "png", "quality": 80}, {"lossless": True, "quality": 80}):
        with pytest.raises(ValidationError, match="quality is for lossy formats"):
            ImageFormat(**values)
    with pytest.raises(ValidationError, match="jpeg is never lossless"):
        ImageFormat(format="jpeg", lossless=True)


def test_a_picture_too_long_for_the_format_becomes_png() -> None:
    long = Image.new("RGB", (16_384, 1))
    data = ImageFormat().encode(long)
    assert Image.open(io.BytesIO(data)).format == "PNG"
    assert ImageFormat().of(long) == "png"
    assert ImageFormat().of(photograph()) == "webp, quality 90"


@pytest.mark.parametrize(
    "settings", [{}, {"format": "jpeg"}, {"lossless": True}, {"format": "png"}]
)
def test_what_is_transparent_is_judged_as_it_is_read_back(settings: dict[str, Any]) -> None:
    clear = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    answer = Generated("row", (Candidate(1, "", image=clear),))
    (candidate,) = as_written(answer, ImageFormat(**settings)).candidates
    assert candidate.image is not None and candidate.encoded is not None
    assert np.asarray(candidate.image.convert("RGB")).min() > 250
    assert np.array_equal(np.asarray(decode(candidate.encoded)), np.asarray(candidate.image))
    if settings.get("format") != "jpeg":
        assert Image.open(io.BytesIO(candidate.encoded)).mode == "RGBA"


@pytest.mark.parametrize("settings", [{}, {"format": "jpeg"}, {"lossless": True}])
def test_the_judge_sees_what_is_written_and_the_export_says_how(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    judge = Selector.judge_images

    def watched(self: Any, images: Any, *rest: Any) -> Any:
        seen.extend(image.tobytes() for image in images)
        return judge(self, images, *rest)

    monkeypatch.setattr(Selector, "judge_images", watched)
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(38, 0, 2))
    generation = {"n": 2, "ungrounded": {"text": 0}, "image_format": settings}
    config = quick_worlds.config(
        tmp_path, generation=generation, export=[{"format": "parquet"}], captioner=None
    )
    before = estimate(load_config(config))["disk"]["an_image"]
    job, _ = quick_worlds.run(config)
    made = [row for row in quick_worlds.completed(job).values() if row["status"] == "completed"]
    assert len(made) == 2
    format = ImageFormat(**settings)
    for row in made:
        image = Image.open(io.BytesIO(row["image"]["bytes"]))
        assert image.format == ("JPEG" if settings.get("format") else "WEBP")
        assert image.convert("RGB").tobytes() in seen
        assert row["completion"]["image_format"] == str(format)
    card = next((job.folder / "exports").rglob("README.md")).read_text()
    assert f"Completed images were written 2 as {format}" in card
    # What was drawn tells the size of what is still to be drawn.
    quick_worlds.write(tmp_path / "data" / "b.parquet", [quick_worlds.row(90, "image")])
    after = estimate(load_config(config))["disk"]["an_image"]
    assert after == int(np.mean([len(row["image"]["bytes"]) for row in made]))
    assert before > 0


def test_inspect_counts_the_candidates_that_are_remembered(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(38, 0, 6))
    config = quick_worlds.config(
        tmp_path, generation={"n": 3}, captioner=None, run={"remember": True}
    )
    foreseen = estimate(load_config(config))["disk"]["remembered"]
    told = CliRunner().invoke(app, ["inspect", str(config)]).output
    assert "for candidates that are remembered" in told
    job, _ = quick_worlds.run(config)
    with sqlite3.connect(job.folder / CANDIDATES) as store:
        (held,) = store.execute("SELECT sum(length(image)) FROM drawn").fetchone()
    assert 0.3 * held < foreseen < 3 * held
