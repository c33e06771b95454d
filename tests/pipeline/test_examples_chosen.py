"""How examples are found, through whole runs: what settings ask for arrives in the completed rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kb.knowledge_base import KnowledgeBase
from pipeline.dataset.images import decode
from pipeline.job import Job
from tests import quick_worlds

RETRIEVAL: dict[str, Any] = {
    "mode": "fusion", "k": 20, "alpha": 0.5, "consensus": 0.25, "examples": 3,
}  # fmt: skip


def ran(folder: Path, **retrieval: Any) -> Job:
    given = quick_worlds.rows(60, 8, 8)
    quick_worlds.write(folder / "data" / "a.parquet", given)
    settings = {
        "mapping": {"method": "attended"},
        "retrieval": RETRIEVAL | retrieval,
        "device": "cpu",
    }
    job, _ = quick_worlds.run(quick_worlds.config(folder, knowledge_base=settings))
    return job


def retrieved(job: Job) -> dict[str, list[str]]:
    """By row that was completed the ids of its examples, also of those that no generator was shown."""
    found = {}
    for row_id, row in quick_worlds.completed(job).items():
        if row["status"] == "completed":
            record = row["completion"]
            found[row_id] = [e["id"] for e in record["examples"] + (record["dropped"] or [])]
    return found


def test_rows_are_grounded_by_attention_and_in_examples_that_differ(tmp_path: Path) -> None:
    job = ran(tmp_path / "differ", diversity=2.0)
    kb = KnowledgeBase.load(job.folder / "kb")
    assert set(kb.manifest["mapping"]["chosen"].values()) == {"attended"}
    assert kb.retriever.settings.diversity == 2.0
    given = {row["id"]: row for row in quick_worlds.rows(60, 8, 8)}
    found = retrieved(job)
    assert len(found) == 16
    for modality in ("image", "text"):
        asked = [i for i in found if given[i][modality] is not None]
        items = [given[i][modality] for i in asked]
        halves: list[Any] = [
            decode(item["bytes"]) if modality == "image" else [item] for item in items
        ]
        hits = kb.retriever.retrieve(job.models.embed(halves, modality), modality, asked)
        assert [found[i] for i in asked] == [[hit.id for hit in each] for each in hits]
    plain = retrieved(ran(tmp_path / "plain"))
    assert any(plain[i] != found[i] for i in found)
    assert all(plain[i][0] == found[i][0] for i in found)


def test_a_fusion_that_is_asked_for_is_measured_kept_and_told(tmp_path: Path) -> None:
    job = ran(tmp_path, fusion="gate")
    kb = job.knowledge.checked()
    told = kb.manifest["retrieval"]["fusion"]
    assert set(told) == {"image", "text"}
    assert {m for m in told if told[m]["taken"]} == set(kb.retriever.fusions)
    for one in told.values():
        assert one["taken"] == (one["gain"] > one["standard_error"])
        assert np.isfinite(one["gain"])
    page = (job.folder / "report" / "index.html").read_text()
    assert "fusion learned for a given image" in page
