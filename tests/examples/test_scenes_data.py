"""The world of scenes as Parquet: what it promises to the pipeline and to evaluation."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from examples.scenes.grammar import SHIPS_LOG, own_words, words
from examples.scenes.things import target_things
from tests.worlds import SCENES


def rows_of(name: str) -> list[dict[str, Any]]:
    """Read one of the files as rows."""
    rows: list[dict[str, Any]] = pq.read_table(SCENES / f"{name}.parquet").to_pylist()
    return rows


@pytest.fixture(scope="module")
def target() -> dict[str, dict[str, Any]]:
    """Give the target's rows by id."""
    return {row["id"]: row for row in rows_of("target")}


def test_a_quarter_lacks_text_a_quarter_lacks_the_image_and_the_rest_is_the_target(
    target: dict[str, dict[str, Any]],
) -> None:
    rows = rows_of("incomplete")
    assert len(rows) == len({row["id"] for row in rows}) == 400
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


def test_the_incomplete_dataset_does_not_tell_what_a_scene_holds() -> None:
    assert set(rows_of("incomplete")[0]) == {"id", "image", "text"}


def test_the_target_holds_each_of_its_things_on_each_ground_and_no_text_twice(
    target: dict[str, dict[str, Any]],
) -> None:
    rows = rows_of("target")
    assert len(rows) == len(target) == len({row["text"] for row in rows}) == 2000
    held = Counter(name for row in rows for name in row["things"].split(", "))
    assert set(held) == {thing.name for thing in target_things()}
    assert min(held.values()) > 10
    assert {row["ground"] for row in rows} == set(SHIPS_LOG.grounds)


def test_the_external_base_is_half_scenes_and_half_noise_in_other_words() -> None:
    rows = rows_of("external")
    assert len({row["id"] for row in rows}) == len(rows)
    kinds = Counter(row["kind"] for row in rows)
    assert kinds["scene"] == 600
    assert 400 < kinds["symbol"] + kinds["clipart"] < 600
    assert {row["kind"] for row in rows if row["relevant"]} == {"scene"}
    told = (*SHIPS_LOG.grounds.values(), *SHIPS_LOG.places.values())
    log = own_words() & {word for phrase in told for word in words(phrase)}
    assert len(log) > 8
    assert not any(log & set(words(row["text"])) for row in rows if row["relevant"])


def test_every_external_row_tells_its_licence_and_source() -> None:
    rows = rows_of("external")
    assert all(row["licence"] and row["source"] for row in rows)
    assert {row["licence"] for row in rows if row["kind"] == "clipart"} == {"public domain"}


@pytest.mark.parametrize("name", ["target", "incomplete", "external"])
def test_every_picture_is_webp_of_64_pixels(name: str) -> None:
    for row in rows_of(name):
        if row["image"] is not None:
            with Image.open(io.BytesIO(row["image"]["bytes"])) as picture:
                assert (picture.format, picture.size, picture.mode) == ("WEBP", (64, 64), "RGB")


@pytest.mark.parametrize("name", ["target", "incomplete", "external"])
def test_datasets_decodes_the_images(name: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "parquet", data_files=str(SCENES / f"{name}.parquet"), split="train", cache_dir=tmp_path
    )
    assert isinstance(loaded.features["image"], datasets.Image)
    picture = next(row["image"] for row in loaded if row["image"] is not None)
    assert picture.size == (64, 64)
