"""Pictures of extreme shapes through a whole job: rows as any other, in bounded memory."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selection.niqe import MAX_PIXELS, niqe, niqe_features
from tests import quick_worlds

SHAPES = [(900, 3), (4000, 1), (1, 20_000), (20_000, 2), (3, 900)]


def _png(size: tuple[int, int]) -> bytes:
    values = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("captioner", ["nearest", "tests.quick_parts:QuickCaptioner"])
def test_thin_pictures_are_rows_as_any_other(tmp_path: Path, captioner: str) -> None:
    rows = quick_worlds.rows(40, 8, 4)
    shapes = iter(SHAPES * 20)
    for row in rows:
        if row["image"] is not None:
            row["image"] = {"bytes": _png(next(shapes)), "path": None}
    quick_worlds.write(tmp_path / "data" / "a.parquet", rows)
    formats = ("webdataset", "imagefolder", "llava", "open_clip", "parquet")
    config = quick_worlds.config(
        tmp_path,
        captioner={"kind": captioner},
        image_generator={"kind": "nearest"},
        export=[{"format": name} for name in formats],
    )
    job, summary = quick_worlds.run(config)
    assert summary["outcomes"] == {"observed": 40, "completed": 12, "rejected": 0, "failed": 0}
    found = quick_worlds.completed(job)
    assert all(found[row["id"]]["image"] == row["image"] for row in rows if row["image"])
    assert (job.folder / "report" / "index.html").stat().st_size > 10_000


@pytest.mark.parametrize("shape", [(9000, 3000), (96, 200_000), (200_000, 100), (MAX_PIXELS, 1)])
def test_of_a_huge_picture_the_middle_is_judged(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selection.niqe.MAX_PIXELS", 1 << 16)
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    features, _ = niqe_features(np.stack([values] * 3, axis=-1))
    assert len(features) <= (1 << 16) // 96**2
    assert bool(len(features)) == (min(shape) >= 96)


def test_a_picture_within_the_limit_is_judged_whole() -> None:
    values = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    assert len(niqe_features(values)[0]) == 6
    assert np.isfinite(niqe([values])).all()
