"""A rerun with other settings redoes the rows that they touch, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.storage.errors import ConfigError
from tests import quick_worlds
from tests.quick_worlds import FinishedRun

MADE = ("text", "image")
# Sections of the config that change; the halves whose rows they touch; what the plan names.
SETTINGS: dict[str, tuple[dict[str, Any], tuple[str, ...], set[str]]] = {
    "the captioner's": ({"captioner": {"style": "bold"}}, ("text",), {"captioner"}),
    "the image generator's": (
        {"image_generator": {"style": "bold"}},
        ("image",),
        {"image_generator"},
    ),
    "how captions are chosen": (
        {"selection": {"caption": {"lambda2": 0.3}}},
        ("text",),
        {"selection.caption"},
    ),
    "how many candidates": ({"generation": {"n": 3}}, MADE, {"generation"}),
    "how many captions without an example": (
        {"generation": {"ungrounded": {"text": 0.5}}},
        ("text",),
        {"generation"},
    ),
    "how many pictures without an example": (
        {"generation": {"ungrounded": {"text": 0, "image": 0.5}}},
        ("image",),
        {"generation"},
    ),
    "a share that comes to the same number": (
        {"generation": {"ungrounded": {"text": 0.4}}},
        (),
        set(),
    ),
    "fewer attempts": ({"generation": {"attempts": 1}}, (), set()),
    "more attempts": ({"generation": {"attempts": 3}}, ("rejected",), {"attempts"}),
    "how pictures are chosen": (
        {"selection": {"image": {"lambda2": 0.9}}},
        ("image",),
        {"selection.image"},
    ),
    "the blocks of a NIQE that is not fitted": (
        {"selection": {"image": {"niqe_block": 16}}},
        (),
        set(),
    ),
    "the seed": ({"run": {"seed": 1}}, MADE, {"run.seed"}),
    "what is retrieved": ({"knowledge_base": {"retrieval": {"k": 3}}}, MADE, {"knowledge_base"}),
    "sizes of shards and blocks": ({"run": {"shard_size": 5, "block_size": 3}}, (), set()),
    "the exports": ({"export": [{"format": "parquet"}]}, (), set()),
    "the limits of a run": ({"run": {"max_deleted_share": 0.5}}, (), set()),
    "where knowledge bases compute": ({"knowledge_base": {"device": "auto"}}, (), set()),
}


def touched(finished: FinishedRun, halves: tuple[str, ...] = MADE) -> set[str]:
    """Ids of the rows that lack a half, or of the one that got blanks."""
    if halves == ("rejected",):
        return {
            row["id"]
            for row in finished.rows().values()
            if row["image"] and row["status"] == "rejected"
        }
    return {row["id"] for half in halves for row in finished.lacking(half)}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_changed_setting_redoes_the_rows_that_it_touches_and_says_so_before(
    finished: FinishedRun, name: str
) -> None:
    changes, halves, sections = SETTINGS[name]
    before = finished.rows()
    finished.change(**changes)
    plan = finished.job().plan()
    expected = touched(finished, halves)
    assert plan.why == ({"settings changed": len(expected)} if expected else {})
    assert plan.sections == dict.fromkeys(sections, len(expected))
    summary, asked = finished.again()
    assert asked == expected
    assert summary["why"] == plan.why
    after = finished.rows()
    assert {r: each for r, each in after.items() if r not in expected} == {
        r: each for r, each in before.items() if r not in expected
    }
    assert not finished.again()[1]


# Settings under which others do nothing, and those others.
IDLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "what is retrieved, without examples": (
        {"generation": {"grounded": False}},
        {
            "generation": {"ungrounded": {"text": 0.5, "image": 0.5}},
            "knowledge_base": {"retrieval": {"k": 3, "examples": 2}, "index": {"index": "flat"}},
        },
    ),
    "how external pairs are purified, where they are not": (
        {"knowledge_base": {"purify": False}},
        {"knowledge_base": {"filter": {"tau_cent": 0.4}, "alignment": {"gamma": 0.1}}},
    ),
    "how external pairs are purified, where there are to be none": (
        {"knowledge_base": {"sources": ["internal"]}},
        {"knowledge_base": {"purify": False, "filter": {"tau_inst": 0.4}}},
    ),
    "the weight of the second stage, where there is but one": (
        {"knowledge_base": {"retrieval": {"mode": "intra"}}},
        {"knowledge_base": {"retrieval": {"mode": "intra", "alpha": 0.2}}},
    ),
}


@pytest.mark.parametrize("name", IDLE)
def test_a_setting_that_does_nothing_redoes_nothing(finished: FinishedRun, name: str) -> None:
    first, then = IDLE[name]
    finished.change(**first)
    finished.again()
    finished.change(**then)
    assert finished.job().plan().why == {}
    assert not finished.again()[1]


def test_rows_without_examples_follow_the_mapping_alone(finished: FinishedRun) -> None:
    finished.change(generation={"grounded": False}, run={"on_kb_change": "redo"})
    assert finished.again()[1] == touched(finished)
    # Too few to fit anew: they join, and nothing that an ungrounded row depends on has changed.
    quick_worlds.write(finished.data / "b.parquet", [quick_worlds.row(300)])
    summary, asked = finished.again()
    assert summary["built"] and not asked
    quick_worlds.write(finished.data / "c.parquet", [quick_worlds.row(n) for n in range(301, 330)])
    summary, asked = finished.again()
    assert asked == touched(finished)
    assert summary["sections"] == {"content of the knowledge base": len(asked)}


def test_attempts_that_were_lowered_and_raised_again_redo_nothing(finished: FinishedRun) -> None:
    for attempts in (1, 2):
        finished.change(generation={"attempts": attempts})
        assert not finished.again()[1]
    finished.change(generation={"attempts": 3})
    assert finished.again()[1] == touched(finished, ("rejected",))


def test_remembered_candidates_are_chosen_from_anew_and_nothing_is_asked_for(
    finished: FinishedRun,
) -> None:
    finished.change(run={"seed": 1, "remember": True})
    assert finished.again()[1] == touched(finished)
    before = finished.rows()
    finished.change(selection={"caption": {"lambda2": 0.9}, "image": {"lambda2": 0.9}})
    summary, asked = finished.again()
    assert summary["why"] == {"settings changed": len(touched(finished))}
    assert asked == set()
    after = finished.rows()
    for row_id in touched(finished):
        old, new = before[row_id]["completion"], after[row_id]["completion"]
        seeds = [[c["seed"] for c in each["candidates"]] for each in (old, new)]
        assert seeds[0] == seeds[1] and old["run_id"] != new["run_id"]


def test_remembering_is_refused_where_several_processes_would_write(finished: FinishedRun) -> None:
    finished.change(run={"remember": True}, engine={"kind": "dask"})
    with pytest.raises(ConfigError, match="run.remember needs engine local; got engine dask"):
        finished.job()


def test_an_export_more_is_written_and_nothing_else(finished: FinishedRun) -> None:
    files = {p: p.stat().st_mtime_ns for p in (finished.folder / "runs").rglob("*.parquet")}
    finished.change(export=[{"format": "parquet"}])
    finished.again()
    exported = pq.read_table(finished.folder / "runs/quick/exports/parquet/data")
    assert len(exported) == len(finished.given) - 2 - len(touched(finished, ("rejected",)))
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_two_exports_of_one_format_stand_side_by_side(finished: FinishedRun) -> None:
    observed = {"format": "parquet", "name": "observed", "only": "observed"}
    finished.change(export=[{"format": "parquet"}, observed])
    summary, _ = finished.again()
    places = {name: Path(place) for name, place in summary["exports"].items()}
    assert list(places) == ["parquet", "observed"]
    rows = {name: len(pq.read_table(place / "data")) for name, place in places.items()}
    whole = sum(bool(each["image"] and each["text"]) for each in finished.given)
    assert rows["observed"] == whole < rows["parquet"]
    files = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("exports/*/data/*")}
    assert len(files) == 2
    finished.again()
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_a_new_knowledge_base_redoes_rows_where_it_is_asked_to(finished: FinishedRun) -> None:
    finished.change(run={"on_kb_change": "redo"})
    assert finished.again()[1] == touched(finished), "rows were made without that word"
    assert not finished.again()[1]
    quick_worlds.write(finished.data / "b.parquet", [quick_worlds.row(n) for n in range(300, 320)])
    summary, asked = finished.again()
    assert asked == touched(finished)
    assert summary["sections"] == {"content of the knowledge base": len(asked)}
    finished.change(run={"on_kb_change": "keep"})
    quick_worlds.write(finished.data / "c.parquet", [quick_worlds.row(n) for n in range(320, 340)])
    finished.again()
    assert not finished.again()[1]


def test_without_a_generator_what_it_made_stays_and_new_rows_are_rejected(
    finished: FinishedRun,
) -> None:
    before = finished.rows()
    finished.change(image_generator=None)
    finished.given += [quick_worlds.row(100, "image"), quick_worlds.row(101, "text")]
    finished.write()
    _, asked = finished.again()
    after = finished.rows()
    assert asked == {"row 101"} and after["row 101"]["status"] == "completed"
    assert {row_id: after[row_id] for row_id in before} == before
    rejected = after["row 100"]
    assert (rejected["status"], rejected["missing"]) == ("rejected", "image")
    assert rejected["image"] is None and rejected["text"]
    assert rejected["reason"] == "no image in the row; the config has no image_generator"
    assert finished.again()[1] == set()

    finished.change(image_generator={"kind": "tests.quick_parts:QuickPainter"})
    assert finished.job().plan().pending == {"none": 0, "text": 0, "image": 1}
    assert finished.again()[1] == {"row 100"}
    assert finished.rows()["row 100"]["status"] == "completed"


def test_rows_without_a_captioner_keep_their_image(finished: FinishedRun) -> None:
    finished.change(captioner=None)
    finished.given.append(quick_worlds.row(101, "text"))
    finished.write()
    _, asked = finished.again()
    row = finished.rows()["row 101"]
    assert not asked and row["status"] == "rejected" and row["text"] is None
    assert row["image"] == finished.given[-1]["image"]
    assert row["reason"] == "no text in the row; the config has no captioner"
