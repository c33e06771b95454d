"""The knowledge base of a run follows its dataset: pairs join, leave and move."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kb.mapping import CrossModalMapping
from pipeline.advice.search import search
from pipeline.config.config import load_config
from pipeline.job import Job
from pipeline.knowledge.standing import STANDARDS
from pipeline.storage.errors import ConfigError
from tests import quick_worlds
from tests.pipeline.two_sources import WHOLE, build, fitted, grown, write
from tests.quick_parts import QuickEncoder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path)


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
