"""The example world's Parquet files: what they promise to the pipeline and to evaluation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

HERE = Path(__file__).resolve().parents[2] / "examples" / "emoji"


def rows_of(name: str) -> list[dict[str, Any]]:
    """Read one of the files as rows."""
    rows: list[dict[str, Any]] = pq.read_table(HERE / f"{name}.parquet").to_pylist()
    return rows


@pytest.fixture(scope="module")
def target() -> dict[str, dict[str, Any]]:
    """Give the target's rows by id."""
    return {row["id"]: row for row in rows_of("target")}


def test_a_quarter_lacks_text_a_quarter_lacks_the_image_and_the_rest_is_the_target(
    target: dict[str, dict[str, Any]],
) -> None:
    rows = rows_of("incomplete")
    assert len(rows) == 400
    assert sum(row["text"] is None for row in rows) == 100
    assert sum(row["image"] is None for row in rows) == 100
    for row in rows:
        assert row["text"] is not None or row["image"] is not None
        assert row["text"] in (None, target[row["id"]]["text"])
        assert row["image"] in (None, target[row["id"]]["image"])


def test_incomplete_rows_lie_mixed() -> None:
    rows = rows_of("incomplete")
    lacking = [row["text"] is None or row["image"] is None for row in rows]
    changes = sum(a != b for a, b in zip(lacking, lacking[1:], strict=False))
    assert changes > 120


def test_target_has_unique_ids_and_names_and_no_flags_or_symbols(
    target: dict[str, dict[str, Any]],
) -> None:
    rows = rows_of("target")
    assert len(rows) == len(target) == len({row["text"] for row in rows}) > 1000
    assert not {row["category"] for row in rows} & {"Flags", "Symbols"}


def test_three_in_ten_of_the_target_are_not_in_the_external_base(
    target: dict[str, dict[str, Any]],
) -> None:
    held = {row["id"].removeprefix("flat-") for row in rows_of("external") if row["relevant"]}
    assert held <= set(target)
    assert 0.27 < 1 - len(held) / len(target) < 0.36


def test_external_captions_are_worded_differently(target: dict[str, dict[str, Any]]) -> None:
    rows = [row for row in rows_of("external") if row["relevant"]]
    same = [row["text"] == target[row["id"].removeprefix("flat-")]["text"] for row in rows]
    assert sum(same) / len(rows) < 0.02


def test_every_noise_row_tells_its_licence_and_is_marked() -> None:
    rows = rows_of("external")
    clipart = [row for row in rows if row["kind"] == "clipart"]
    assert len(clipart) >= 200
    assert {row["licence"] for row in clipart} == {"public domain"}
    assert not any(row["relevant"] for row in clipart)
    assert all(row["licence"] and row["source"] for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("name", ["target", "incomplete", "external"])
def test_every_picture_is_lossless_webp_of_64_pixels(name: str) -> None:
    for row in rows_of(name):
        if row["image"] is not None:
            data = row["image"]["bytes"]
            assert data[12:16] == b"VP8L"
            with Image.open(io.BytesIO(data)) as picture:
                assert (picture.size, picture.mode) == ((64, 64), "RGB")


@pytest.mark.parametrize("name", ["target", "incomplete", "external"])
def test_datasets_decodes_the_images(name: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "parquet", data_files=str(HERE / f"{name}.parquet"), split="train", cache_dir=tmp_path
    )
    assert isinstance(loaded.features["image"], datasets.Image)
    picture = next(row["image"] for row in loaded if row["image"] is not None)
    assert picture.size == (64, 64)
