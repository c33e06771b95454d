"""Complete pairs are completed as rows are, without what tells of them, and compared with themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from generators.base import derive_seed
from kb.embeddings import normalise
from pipeline.check.apart import KnowledgeApart
from pipeline.config.config import load_config
from pipeline.job import Job
from pipeline.ledger.summary import told
from tests import quick_worlds
from tests.calls import LOG, calls
from tests.pipeline.check.checked import PAIRS, checked, config, data, world

HALVES = ("text", "image")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run with a check, and its summary."""
    folder = tmp_path_factory.mktemp("checked") / "w"
    return folder, quick_worlds.run(world(folder))[1]


@pytest.fixture
def done(
    once: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The config of a copy of it."""
    folder = shutil.copytree(once[0], tmp_path / "w")
    monkeypatch.setenv(LOG, str(folder))
    return folder / "dmc.yaml"


def asked(path: Path) -> set[str]:
    """Rows and pairs that generators are asked for in another run."""
    before = len(calls(path.parent))
    quick_worlds.run(path)
    return {row_id for _, row_id in calls(path.parent)[before:]}


def test_checked_pairs_are_completed_with_the_seeds_and_settings_of_rows(done: Path) -> None:
    rows, given = quick_worlds.completed(Job(load_config(done))), {r["id"]: r for r in data()}
    for half in HALVES:
        pairs = checked(done, half)
        assert len(pairs) == PAIRS
        made = [row["completion"] for row in rows.values() if row["missing"] == half]
        for row_id, pair in pairs.items():
            own, other = pair["completion"], {"text": "image", "image": "text"}[half]
            assert pair["status"] == "completed" and pair["missing"] == half
            assert pair[other] == given[row_id][other] and pair[half] != given[row_id][half]
            assert own["seed"] in {derive_seed(0, row_id, n, 1) for n in range(2)}
            assert len(own["candidates"]) == len(pair["check"]["candidates"]) == 2
            for name in ("generator", "model", "kb_version", "image_format"):
                assert own[name] == made[0][name]


def test_what_tells_of_a_checked_pair_is_kept_from_it(done: Path) -> None:
    given = {row["id"]: row for row in data()}
    twins = 0
    for half in HALVES:
        for row_id, pair in checked(done, half).items():
            shown = [given[one["id"]] for one in pair["completion"]["examples"]]
            assert len(shown) == 2
            for example in shown:
                assert example["id"] != row_id
                assert example["image"] != given[row_id]["image"]
                assert example["text"] != given[row_id]["text"]
            twins += row_id.startswith("twin") or f"twin of {row_id}" in given
    assert twins > 20
    # One of each group is checked: no twin beside its pair.
    for half in HALVES:
        pairs = checked(done, half)
        assert not {f"twin of {row_id}" for row_id in pairs} & pairs.keys()


def test_near_duplicates_by_their_pictures_are_not_retrieved(done: Path) -> None:
    job = Job(load_config(done))
    base = job.knowledge.base
    ids = base.pairs["id"].to_pylist()[:20]
    pictures = normalise(base.embeddings["image"])
    cosines = pictures[:20] @ pictures.T
    for threshold in (0.8, 0.5):
        apart = KnowledgeApart(job.knowledge, threshold, 0)
        for observed in HALVES:
            queries = normalise(base.embeddings[observed][:20])
            hits = apart.retrieve(queries, observed, ids)
            assert all(cosines[n, hit.row] < threshold for n, own in enumerate(hits) for hit in own)
            plain = job.knowledge.retrieve(queries, observed, ids)
            near = [cosines[n, h.row] >= threshold for n, own in enumerate(plain) for h in own]
            assert any(near)


def test_nothing_that_judges_or_predicts_a_checked_pair_was_measured_by_it(done: Path) -> None:
    job = Job(load_config(done))
    base = job.knowledge.base
    standards = json.loads((job.folder / "standards.json").read_text())["pairs"]
    assert standards and not set(standards) & checked(done, "image").keys()
    held_out = base.held_out()
    apart = KnowledgeApart(job.knowledge, 0.95, 0)
    for half, observed in (("text", "image"), ("image", "text")):
        ids = sorted(checked(done, half))
        rows = [base.pairs["id"].to_pylist().index(row_id) for row_id in ids]
        seen = normalise(base.embeddings[observed][rows])
        places = [held_out.ids.index(row_id) for row_id in ids]
        unseen = normalise(held_out.predictions[observed][places])
        np.testing.assert_allclose(apart.pseudo(seen, observed, ids), unseen, atol=1e-6)
        assert not np.allclose(base.pseudo(seen, observed), unseen, atol=0.01)
        # The cosine that chose the candidate is to that prediction.
        for row_id, target in zip(ids, unseen, strict=True):
            pair = checked(done, half)[row_id]
            candidate = pair["completion"]["candidates"][pair["completion"]["chosen"]]
            if half == "text":
                own = job.models.embed([[pair["text"]]], "text")[0]
                assert candidate["cosine"] == pytest.approx(float(own @ target), abs=1e-3)
            break
    for row_id in checked(done, "text"):
        hubs = apart.selector_of(row_id).pseudo_texts
        own = normalise(held_out.predictions["image"][[held_out.ids.index(row_id)]])
        assert len(hubs) < len(job.knowledge.selector.pseudo_texts)
        assert not np.isclose(hubs, own, atol=1e-6).all(axis=1).any()


def test_similarities_are_those_of_the_embedded_halves(done: Path) -> None:
    job = Job(load_config(done))
    base, given = job.knowledge.base, {row["id"]: row for row in data()}
    for row_id, pair in list(checked(done, "text").items())[:10]:
        [truth] = job.models.embed([[given[row_id]["text"]]], "text")
        [made] = job.models.embed([[pair["text"]]], "text")
        [example] = job.models.embed(
            [[given[pair["completion"]["examples"][0]["id"]]["text"]]], "text"
        )
        assert pair["check"]["chosen"] == pytest.approx(float(made @ truth), abs=1e-3)
        assert pair["check"]["example"] == pytest.approx(float(example @ truth), abs=1e-3)
        every = normalise(base.embeddings["text"]) @ truth
        assert every.min() < pair["check"]["random"] < every.max()


def test_figures_and_confidence_arrive(once: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = once
    for half in HALVES:
        found = summary["check"][half]
        pairs = list(checked(folder / "dmc.yaml", half).values())
        assert found["checked"] == found["generated"] == PAIRS
        values = [pair["check"]["chosen"] for pair in pairs]
        assert found["similarity"]["mean"] == pytest.approx(np.mean(values), abs=1e-6)
        assert found["random"]["mean"] < found["similarity"]["mean"]
        assert (
            0 <= found["better"]["low"] <= found["better"]["mean"] <= found["better"]["high"] <= 1
        )
        assert found["calibration"]["rows"] == PAIRS and len(found["calibration"]["curve"]) == 3
        assert ("cider" in found) == (half == "text")
        low, high = min(values) - 0.01, max(values) + 0.01
        for row in quick_worlds.completed(Job(load_config(folder / "dmc.yaml"))).values():
            made = row["completion"]
            if row["missing"] == half:
                assert low <= made["confidence"] <= high and 0 <= made["gain_probability"] <= 1
                assert made["candidates"][0]["agreement"] is not None
            elif row["status"] == "observed":
                assert made is None
    kept = json.loads((folder / "runs/quick/summary.json").read_text())["check"]
    assert kept == summary["check"]


def test_a_rerun_asks_for_nothing(done: Path) -> None:
    figures = done.parent / "runs/quick/check/text/figures.json"
    before = figures.stat().st_mtime_ns
    assert asked(done) == set()
    assert figures.stat().st_mtime_ns == before


def test_more_pairs_are_those_and_some_besides(done: Path) -> None:
    before = {half: set(checked(done, half)) for half in HALVES}
    config(done.parent, check=PAIRS + 8)
    new = asked(done)
    for half in HALVES:
        after = set(checked(done, half))
        assert before[half] < after and len(after) == PAIRS + 8
    assert 8 <= len(new) <= 16 and not new & (before["text"] & before["image"])


def test_other_settings_draw_other_pairs_and_leave_the_other_half_alone(done: Path) -> None:
    before = {half: set(checked(done, half)) for half in HALVES}
    captioner = {"kind": "tests.quick_parts:QuickCaptioner", "style": "bold"}
    config(done.parent, captioner=captioner)
    asked(done)
    pairs = checked(done, "text")
    bold = {row_id for row_id, pair in pairs.items() if "bold" in pair["text"]}
    assert set(checked(done, "image")) == before["image"]
    assert len(bold) == PAIRS and bold != before["text"]


def test_without_a_check_nothing_is_hidden_and_nothing_said(tmp_path: Path) -> None:
    job, summary = quick_worlds.run(world(tmp_path, check=0))
    assert summary["check"] == {} and not (job.folder / "check").exists()
    made = [row["completion"] for row in quick_worlds.completed(job).values() if row["completion"]]
    assert made and all(one["confidence"] is None for one in made)


def test_a_run_that_is_too_small_says_so(tmp_path: Path) -> None:
    job, summary = quick_worlds.run(world(tmp_path, check="auto"))
    assert not (job.folder / "check/text/completed").exists()
    for half, rows in (("text", 20), ("image", 14)):
        assert f"off: 4% of the {rows} rows that lack it" in summary["check"][half]["told"]
    assert [line for line in told(summary) if "check" in line] == [
        "check: off where few rows lack a half; run.check: N checks N pairs of each"
    ]


def test_few_pairs_have_figures_and_no_confidence(tmp_path: Path) -> None:
    _, summary = quick_worlds.run(world(tmp_path, check=30))
    found = summary["check"]["text"]
    assert found["generated"] == 30 and found["similarity"] and found["calibration"] is None


def test_a_dataset_without_enough_pairs_says_so(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(30, 6, 6))
    _, summary = quick_worlds.run(config(tmp_path))
    assert "there is no complete pair that may be checked" in summary["check"]["text"]["told"]


def test_a_floor_of_confidence_rejects_rows_and_no_checked_pair(done: Path) -> None:
    job = Job(load_config(done))
    values = sorted(
        row["completion"]["confidence"]
        for row in quick_worlds.completed(job).values()
        if row["missing"] == "text"
    )
    floor = (values[len(values) // 2 - 1] + values[len(values) // 2]) / 2
    before = checked(done, "text").keys()
    config(done.parent, selection={"caption": {"floor_confidence": floor}})
    again = asked(done)
    assert checked(done, "text").keys() == before and not again & before
    rows = quick_worlds.completed(Job(load_config(done))).values()
    rows = [row for row in rows if row["missing"] == "text"]
    kept = [row for row in rows if row["status"] == "completed"]
    assert all(row["completion"]["confidence"] >= floor - 1e-6 for row in kept)
    low = [row for row in rows if row["status"] == "rejected"]
    assert low and all("floor_confidence" in row["reason"] for row in low)
    assert {pair["status"] for pair in checked(done, "text").values()} == {"completed"}


def test_parts_hold_the_columns_of_rows_and_the_check(done: Path) -> None:
    folder = done.parent / "runs/quick"
    [row, *_] = sorted((folder / "completed").glob("*.parquet"))
    [pair, *_] = sorted((folder / "check/text/completed").glob("*.parquet"))
    names = pq.read_schema(row).names
    assert pq.read_schema(pair).names == [*names, "check"]
