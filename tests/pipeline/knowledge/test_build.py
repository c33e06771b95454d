"""The knowledge base of a run follows its dataset: pairs join, leave and move."""

from __future__ import annotations

import html
import io
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import yaml
from PIL import Image

from kb.cache import EmbeddingCache
from kb.mapping import CrossModalMapping
from pipeline.advice.search import search
from pipeline.config.config import load_config
from pipeline.dataset.dataset import DatasetError
from pipeline.dataset.images import decode
from pipeline.job import Job
from pipeline.knowledge.standing import STANDARDS
from pipeline.ledger.summary import told
from pipeline.report.run import report_run
from pipeline.storage.errors import ConfigError
from tests import quick_worlds
from tests.quick_parts import QuickEncoder

ROWS = quick_worlds.rows(60, 3, 3)
WHOLE = [row["id"] for row in ROWS if row["image"] and row["text"]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    quick_worlds.write(tmp_path / "data" / "a.parquet", ROWS)
    quick_worlds.write(
        tmp_path / "more" / "b.parquet",
        [quick_worlds.row(number) | {"id": f"web {number}"} for number in range(100, 140)],
    )
    return quick_worlds.config(tmp_path, external=[{"name": "web", "path": "more"}])


def build(config: Path) -> tuple[Job, bool]:
    job = Job(load_config(config))
    with job.lock():
        job.begin()
        return job, job.build()


def grown(config: Path, extra: int, gone: int = 0) -> None:
    more = [quick_worlds.row(200 + number) for number in range(extra)]
    left = [row for row in ROWS if row["id"] not in WHOLE[:gone]]
    quick_worlds.write(config.parent / "data" / "a.parquet", [*left, *more])


def fitted(job: Job) -> dict[str, bytes]:
    folder = job.folder / "kb"
    return {p.name: p.read_bytes() for n in ("mapping", "filter") for p in (folder / n).iterdir()}


def test_a_few_new_rows_join_without_a_fit_and_are_all_that_is_encoded(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = build(config)
    before, standards = fitted(first), (first.folder / STANDARDS).read_bytes()
    version = first.knowledge.checked().version
    grown(config, 4)
    encoded: list[int] = []
    original = QuickEncoder.encode

    def count(self: Any, items: Any, modality: str) -> np.ndarray:
        items = list(items)
        encoded.append(len(items))
        return original(self, items, modality)

    def refuse(self: Any, *_: Any) -> None:
        raise AssertionError("the mapping was fitted")

    monkeypatch.setattr(QuickEncoder, "encode", count)
    monkeypatch.setattr(CrossModalMapping, "fit", refuse)
    second, built = build(config)
    assert built
    assert sum(encoded) == 8
    assert fitted(second) == before
    assert (second.folder / STANDARDS).read_bytes() == standards
    manifest = json.loads((second.folder / "kb" / "manifest.json").read_text())
    assert [(a["internal"], a["gone"]) for a in manifest["additions"]] == [(60, 0), (4, 0)]
    pairs = second.knowledge.checked().pairs
    new = pairs.filter(np.asarray(pairs["added"]) == 1)["id"].to_pylist()
    assert new == [f"row {200 + number:03d}" for number in range(4)]
    assert second.knowledge.checked().version != version


def test_many_new_rows_ask_for_a_fit(config: Path) -> None:
    first, _ = build(config)
    before = fitted(first)
    grown(config, 12)
    second, _ = build(config)
    assert fitted(second) != before
    assert len(second.knowledge.checked().manifest["additions"]) == 1


def test_what_a_former_method_made_is_built_anew(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(config)
    assert not build(config)[1]
    for module in ("kb.recipe", "pipeline.knowledge.build"):
        monkeypatch.setattr(f"{module}.METHOD", 999)
    job, built = build(config)
    assert built
    assert job.knowledge.checked().manifest["method"] == 999
    assert not build(config)[1]


def test_a_removed_row_is_retrieved_no_more(config: Path) -> None:
    build(config)
    grown(config, 0, gone=2)
    job, _ = build(config)
    assert not set(WHOLE[:2]) & set(job.knowledge.checked().pairs["id"].to_pylist())
    assert job.knowledge.checked().manifest["additions"][1]["gone"] == 2
    hits = search(job, text="a red square", count=50)
    assert not set(WHOLE[:2]) & {hit["id"] for hit in hits}


def test_a_renamed_file_is_found_and_nothing_new(config: Path) -> None:
    first, _ = build(config)
    version = first.knowledge.checked().version
    shutil.move(config.parent / "data" / "a.parquet", config.parent / "data" / "z.parquet")
    second, _ = build(config)
    assert second.knowledge.checked().version == version
    hit = search(second, text="a red square", count=50)
    assert {h["file"].rsplit("/", 1)[-1] for h in hit if h["source"] == "internal"} == {"z.parquet"}
    assert build(config)[1] is False


def test_other_selection_settings_leave_the_knowledge_base_alone(config: Path) -> None:
    first, _ = build(config)
    manifest = (first.folder / "kb" / "manifest.json").read_bytes()
    standards = (first.folder / STANDARDS).read_bytes()
    text = config.read_text() + "selection: {image: {niqe: fitted, niqe_block: 16}}\n"
    config.write_text(text)
    second, built = build(config)
    assert built
    assert (second.folder / "kb" / "manifest.json").read_bytes() == manifest
    assert (second.folder / STANDARDS).read_bytes() != standards


@pytest.mark.parametrize("name", ["embeddings/text.npy", "indexes/image.faiss", "pairs.arrow"])
@pytest.mark.parametrize("harm", ["cut", "bit"])
def test_a_damaged_file_is_told_by_those_who_read_and_mended_by_those_who_hold_the_lock(
    config: Path, name: str, harm: str
) -> None:
    first, _ = build(config)
    expected = search(first, text="a red square")
    path = first.folder / "kb" / name
    data = path.read_bytes()
    changed = data[:-100] if harm == "cut" else data[:-1] + bytes([data[-1] ^ 1])
    path.write_bytes(changed)
    told = rf"the knowledge base is damaged \(.*{name}.*\); first: rag4dmc build CONFIG"
    with pytest.raises(ConfigError, match=told):
        search(Job(load_config(config)), text="a red square")
    assert path.read_bytes() == changed
    job = Job(load_config(config))
    with job.lock():
        assert job.build() or job.mend()
    assert search(Job(load_config(config)), text="a red square") == expected
    assert build(config)[1] is False


def test_a_run_mends_the_knowledge_base_that_its_rows_need(config: Path) -> None:
    first, _ = build(config)
    path = first.folder / "kb" / "embeddings" / "text.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    _, summary = quick_worlds.run(config)
    assert summary["outcomes"]["completed"] == 6
    assert path.read_bytes() == data


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
    assert [hit["thumbnail"] for hit in hits] == [None] * 5
    assert "no thumbnails" in caplog.text


def test_pictures_are_decoded_one_at_a_time(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def counting(data: bytes, limit: int) -> Image.Image:
        nonlocal alive, most
        picture = decode(data, limit)
        alive += 1
        most = max(most, alive)
        weakref.finalize(picture, gone)
        return picture

    monkeypatch.setattr("pipeline.knowledge.embedding.decode", counting)
    config.write_text(config.read_text() + "selection: {image: {niqe: fitted, niqe_block: 16}}\n")
    build(config)
    assert 1 <= most <= 3


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
    assert "grounds no row any more" in caplog.text


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
    [warning] = summary["warnings"]
    assert warning.startswith("external set 'odd': none of its 40 pairs passed the filter")
    assert f"warning: {warning}" in told(summary)
    assert html.escape(warning).replace("&#x27;", "&#39;") in Path(summary["report"]).read_text()
    for row in quick_worlds.completed(job).values():
        for example in (row["completion"] or {}).get("examples", []):
            assert example["source"] == "internal"
    # It stands in later summaries too, until the knowledge base is another.
    assert quick_worlds.run(config)[1]["warnings"] == [warning]


def test_a_run_without_anything_amiss_warns_of_nothing(config: Path) -> None:
    summary = quick_worlds.run(config)[1]
    assert summary["warnings"] == []
    assert not [line for line in told(summary) if line.startswith("warning")]
