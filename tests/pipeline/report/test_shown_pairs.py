"""What is shown of the knowledge base's pairs: by a search and in the report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kb.cache import EmbeddingCache
from pipeline.advice.search import search
from pipeline.config.config import load_config
from pipeline.job import Job
from pipeline.report.run import report_run
from tests import quick_worlds
from tests.pipeline.report.test_report import embedded
from tests.pipeline.two_sources import build, grown, write
from tests.quick_parts import QuickEncoder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path)


def test_a_search_shows_both_similarities_the_source_and_a_thumbnail(config: Path) -> None:
    job, _ = build(config)
    for hit in search(job, text="a red square", count=5):
        assert hit["source"] in ("internal", "web")
        assert -1 <= hit["cross"] <= 1 and -1 <= hit["intra"] <= 1
        with Image.open(hit["thumbnail"]) as small:
            assert max(small.size) <= 160
    found = search(job, image=Path(search(job, text="a red square")[0]["thumbnail"]))
    assert found[0]["intra"] > 0.9


def test_a_search_without_the_pictures_still_answers(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(config)
    shutil.move(config.parent / "data" / "a.parquet", config.parent / "data" / "z.parquet")
    hits = search(Job(load_config(config)), text="a red square")
    moved = [hit["source"] == "internal" and hit["file"] == "a.parquet" for hit in hits]
    assert any(moved) and [hit["thumbnail"] is None for hit in hits] == moved
    assert "has no picture any more" in caplog.text


class Watched:
    """Embeddings that may be read by row, not whole."""

    def __init__(self, embeddings: np.ndarray) -> None:
        self._embeddings = embeddings
        self.shape = embeddings.shape

    def __len__(self) -> int:
        return len(self._embeddings)

    def __getitem__(self, rows: Any) -> np.ndarray:
        assert isinstance(rows, np.ndarray) and len(rows) <= 60
        return self._embeddings[rows]

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise AssertionError("read whole")


def test_a_report_encodes_nothing_and_reads_only_what_it_shows(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_worlds.run(config)
    grown(config, 4)
    job = Job(load_config(config))
    monkeypatch.setattr(QuickEncoder, "__init__", None)
    knowledge = job.knowledge.checked()
    knowledge.embeddings = {m: Watched(knowledge.embeddings[m]) for m in ("image", "text")}
    rows = EmbeddingCache.rows
    monkeypatch.setattr(
        EmbeddingCache,
        "rows",
        lambda self, places: Watched(rows(self, places)),  # type: ignore
    )
    shown = report_run(job).read_text(encoding="utf-8")
    assert "Before" in shown
    shutil.rmtree(job.embeddings.folder)
    report_run(Job(load_config(config)))
    assert not job.embeddings.folder.exists()


@pytest.mark.parametrize("change", ["renamed", "shortened", "in another order"])
def test_a_report_of_pairs_whose_file_is_another_has_no_pictures_of_them(
    tmp_path: Path, change: str
) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(12, 2, 2))
    others = [quick_worlds.row(number) | {"id": f"x{number}"} for number in range(100, 112)]
    path = tmp_path / "others" / "a.parquet"
    quick_worlds.write(path, others)
    place = quick_worlds.config(tmp_path, external=[{"name": "others", "path": "others"}])
    job, _ = quick_worlds.run(place)
    if change == "renamed":
        path.rename(path.with_name("b.parquet"))
    else:
        quick_worlds.write(path, others[:1] if change == "shortened" else others[::-1])
    pairs = Job(job.config).knowledge.base.pairs.to_pylist()
    found = Job(job.config).knowledge.pairs(range(len(pairs)), with_images=True)
    kept = [pair.source for pair in found.values() if pair.image is not None]
    assert kept.count("internal") == 12
    assert kept.count("others") == (1 if change == "shortened" else 0)
    assert report_run(Job(job.config)).is_file()


def test_an_example_whose_picture_is_another_since_is_not_shown_with_that(tmp_path: Path) -> None:
    given = quick_worlds.rows(12, 3, 0)
    quick_worlds.write(tmp_path / "data" / "a.parquet", given)
    job, _ = quick_worlds.run(quick_worlds.config(tmp_path))
    before = _examples(report_run(job))
    assert before and all(example.get("image") for example in before)
    changed = before[0]["id"]
    for row in given:
        if row["id"] == changed:
            row["image"] = quick_worlds.row(500)["image"]
    quick_worlds.write(tmp_path / "data" / "a.parquet", given)
    later = Job(job.config)
    with later.lock():
        later.begin()
        later.build()
        after = _examples(report_run(later))
    assert {example["id"] for example in after if example.get("changed")} == {changed}
    for example in after:
        assert ("image" in example) != (example["id"] == changed)


def _examples(report: Path) -> list[dict[str, Any]]:
    cards = embedded(report.read_text(encoding="utf-8"))["cards"]
    return [example for card in cards for example in card.get("examples", [])]
