"""Building the knowledge base of a run: what is read, embedded, measured and refused."""

from __future__ import annotations

import html
import io
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import yaml
from PIL import Image

from pipeline.config.config import load_config
from pipeline.dataset.dataset import DatasetError
from pipeline.dataset.images import decode
from pipeline.job import Job
from pipeline.ledger.summary import told
from pipeline.models.loaded import AHEAD
from pipeline.storage.errors import ConfigError
from tests import quick_worlds
from tests.pipeline.two_sources import ROWS, WHOLE, build, write
from tests.quick_parts import QuickEncoder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path)


def test_few_pictures_are_held_at_a_time(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = 0, 0
    lock = threading.Lock()

    def gone() -> None:
        nonlocal alive
        with lock:
            alive -= 1

    def counting(data: bytes, limit: int, least_side: int | None) -> Image.Image:
        nonlocal alive, most
        picture = decode(data, limit, least_side)
        with lock:
            alive += 1
            most = max(most, alive)
        weakref.finalize(picture, gone)
        return picture

    monkeypatch.setattr("pipeline.knowledge.embedding.decode", counting)
    config.write_text(config.read_text() + "selection: {image: {niqe: fitted, niqe_block: 16}}\n")
    build(config)
    # Those that are ready, the one that is used, and the one before it.
    assert 1 <= most <= AHEAD + 2


def broken(row: dict[str, Any]) -> dict[str, Any]:
    """The row with half of its picture."""
    data = row["image"]["bytes"]
    return row | {"image": {"bytes": data[: len(data) // 2], "path": None}}


def test_a_picture_that_breaks_after_the_scan_is_left_out_of_the_pairs(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(load_config(config))
    assert len(job.catalog.complete()) == 60
    changed = [broken(row) if row["id"] in WHOLE[2:4] else row for row in ROWS]
    quick_worlds.write(config.parent / "data" / "a.parquet", changed)
    with job.lock():
        job.begin()
        assert job.build()
    held = job.knowledge.checked().pairs.filter(
        pc.equal(job.knowledge.checked().pairs["source"], "internal")
    )
    assert held["id"].to_pylist() == [name for name in WHOLE if name not in WHOLE[2:4]]
    assert "2 pairs are left out" in caplog.text and WHOLE[2] in caplog.text
    # The others answer with their own halves.
    encoder = QuickEncoder(None, {})  # type: ignore[arg-type]
    for row in (0, 2, 40):
        text = held["text"][row].as_py()
        found = np.asarray(job.knowledge.checked().embeddings["text"][row], np.float32)
        np.testing.assert_allclose(found, encoder.encode(text, "text")[0], atol=2e-3)


def test_an_example_that_breaks_after_the_build_grounds_no_row_and_ends_no_run(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = yaml.safe_load(config.read_text())
    values["knowledge_base"] |= {"sources": ["external"], "purify": False}
    config.write_text(yaml.safe_dump(values))
    job, _ = build(config)
    rows = [broken(quick_worlds.row(n)) | {"id": f"web {n}"} for n in range(100, 140)]
    quick_worlds.write(config.parent / "more" / "b.parquet", rows)
    with job.lock():
        job.complete()
    made = [row for row in quick_worlds.completed(job).values() if row["missing"] == "image"]
    assert [row["status"] for row in made] == ["completed"] * 3
    assert all(row["completion"]["examples"] == [] for row in made)
    assert "has no picture any more" in caplog.text


def test_a_block_too_large_for_the_pictures_is_told_with_one_that_fits(config: Path) -> None:
    config.write_text(config.read_text() + "selection: {image: {niqe: fitted}}\n")
    with pytest.raises(ConfigError, match=r"^selection\.image\.niqe_block: .*96.*; 32 would do$"):
        build(config)
    config.write_text(config.read_text().replace("fitted", "fitted, niqe_block: 32"))
    assert build(config)[1]


def test_an_encoder_that_gives_no_direction_is_told_in_one_line(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuickEncoder, "_image", lambda *_: np.full(12, np.nan))
    with pytest.raises(ConfigError, match=r"^encoder: .*image.* not finite$"):
        build(config)


def test_an_id_that_two_sources_would_share_is_told_before_anything_is_embedded(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_worlds.write(
        config.parent / "data" / "a.parquet", [*ROWS, quick_worlds.row(7) | {"id": "web/web 103"}]
    )
    monkeypatch.setattr(QuickEncoder, "encode", None)
    with pytest.raises(DatasetError, match="internal and web would have the same id 'web/web 103'"):
        build(config)


def test_how_captions_are_scored_leaves_the_standards_of_pictures_alone(config: Path) -> None:
    build(config)
    config.write_text(
        config.read_text()
        + "selection: {caption: {lambda2: 0.5}, image: {lambda1: 0.5, floor_score: -9}}\n"
    )
    assert not build(config)[1]
    config.write_text(config.read_text().replace("lambda1: 0.5", "lambda2: 0"))
    assert build(config)[1]


def strange(number: int) -> dict[str, Any]:
    """A grey picture with a caption that names no colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (48, 48), (100 + number,) * 3).save(buffer, "PNG")
    image = {"bytes": buffer.getvalue(), "path": None}
    return {"id": f"odd {number}", "image": image, "text": f"chapter {number}", "note": None}


def test_a_wholly_irrelevant_external_set_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", ROWS)
    quick_worlds.write(tmp_path / "odd" / "b.parquet", [strange(number) for number in range(40)])
    config = quick_worlds.config(tmp_path, external=[{"name": "odd", "path": "odd"}])
    job, summary = quick_worlds.run(config)
    assert summary["outcomes"]["completed"] == 6
    assert job.knowledge.checked().manifest["counts"]["external"] == 0
    [warning] = [one for one in summary["warnings"] if "NIQE" not in one]
    assert warning.startswith("external set 'odd': none of its 40 pairs passed the filter")
    assert f"warning: {warning}" in told(summary)
    assert html.escape(warning).replace("&#x27;", "&#39;") in Path(summary["report"]).read_text()
    for row in quick_worlds.completed(job).values():
        for example in (row["completion"] or {}).get("examples", []):
            assert example["source"] == "internal"
    # It stands in later summaries too, until the knowledge base is another.
    assert quick_worlds.run(config)[1]["warnings"] == summary["warnings"]


def test_a_run_without_anything_amiss_warns_of_nothing(config: Path) -> None:
    # Its pictures are too small for NIQE, which a run that asks for it says.
    config.write_text(config.read_text() + "selection: {image: {niqe: 'off'}}\n")
    summary = quick_worlds.run(config)[1]
    assert summary["warnings"] == []
    assert not [line for line in told(summary) if line.startswith("warning")]
