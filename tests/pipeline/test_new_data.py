"""A rerun does what is new or touched by a setting, and nothing else."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.job import Job
from pipeline.summary import told
from tests import quick_worlds
from tests.killing import calls
from tests.quick_parts import LOG

TEXTS, IMAGES = 12, 8
GIVEN = quick_worlds.rows(40, TEXTS, IMAGES, 2)
# One row whose captions are all blank.
BLANK = next(each["id"] for each in GIVEN if each["image"] and each["text"] is None)
CAPTIONER = {"kind": "tests.quick_parts:QuickCaptioner", "blank": BLANK}


class World:
    """A finished run, its data to be changed and run again."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.folder = config.parent
        self.data = self.folder / "data"
        self.given = copy.deepcopy(GIVEN)

    def job(self) -> Job:
        return Job(load_config(self.config))

    def rows(self) -> dict[str, dict[str, Any]]:
        return quick_worlds.completed(self.job())

    def write(self, given: list[dict[str, Any]] | None = None, **options: Any) -> None:
        quick_worlds.write(self.data / "a.parquet", given or self.given, **options)

    def change(self, **changes: Any) -> None:
        values = yaml.safe_load(self.config.read_text(encoding="utf-8")) | changes
        self.config.write_text(yaml.safe_dump(values), encoding="utf-8")

    def lacking(self, half: str) -> list[dict[str, Any]]:
        other = {"text": "image", "image": "text"}[half]
        return [each for each in self.given if each[half] is None and each[other] is not None]

    def again(self, **options: Any) -> tuple[dict[str, Any], set[str]]:
        """Run again; the summary, and the rows that a generator was asked for."""
        before = len(calls(self.folder))
        _, summary = quick_worlds.run(self.config, **options)
        return summary, {row_id for _, row_id in calls(self.folder)[before:]}

    def history(self) -> dict[str, Any]:
        found = [pq.read_table(p) for p in (self.folder / "runs/quick/history").glob("*")]
        return {each["id"]: each for table in found for each in table.to_pylist()}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "w"
    world = World(
        quick_worlds.config(folder, captioner=CAPTIONER, run={"shard_size": 8, "block_size": 4})
    )
    world.write()
    quick_worlds.run(world.config)
    return folder


@pytest.fixture
def world(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    folder = shutil.copytree(template, tmp_path / "w")
    monkeypatch.setenv(LOG, str(folder / "calls.txt"))
    return World(folder / "dmc.yaml")


def _ids(rows: list[dict[str, Any]]) -> set[str]:
    return {each["id"] for each in rows}


class TestData:
    def test_a_file_more_and_a_grown_knowledge_base_touch_the_new_rows_alone(
        self, world: World
    ) -> None:
        before, version = world.rows(), world.job().knowledge_base.version
        new = [
            quick_worlds.row(n, lacks) for n, lacks in ((200, "text"), (201, "image"), (202, None))
        ]
        quick_worlds.write(world.data / "b.parquet", new)
        summary, asked = world.again()
        assert asked == {"row 200", "row 201"}
        assert summary["why"] == {"new": 3}
        after = world.rows()
        assert world.job().knowledge_base.version != version
        assert {row_id: after[row_id] for row_id in before} == before

    def test_reordered_renamed_and_resharded_input_is_nothing_new(self, world: World) -> None:
        before = world.rows()
        (world.data / "a.parquet").unlink()
        shuffled = world.given[::-1]
        quick_worlds.write(world.data / "x.parquet", shuffled[:30])
        quick_worlds.write(world.data / "deep" / "y.parquet", shuffled[30:])
        summary, asked = world.again()
        assert not asked and not summary["why"] and not summary["rewritten"]
        assert world.rows() == before

    def test_pairs_are_found_again_where_they_lie_now(self, world: World) -> None:
        (world.data / "a.parquet").unlink()
        quick_worlds.write(world.data / "x.parquet", world.given[::-1])
        quick_worlds.write(world.data / "y.parquet", [quick_worlds.row(200, "image")])
        summary, asked = world.again()
        assert asked == {"row 200"}
        made = world.rows()["row 200"]["completion"]
        (example,) = made["examples"]
        pairs = world.job().knowledge_base.pairs.to_pylist()
        (pair,) = [each for each in pairs if each["id"] == example["id"]]
        assert pair["file"] == "x.parquet"
        place = [each["id"] for each in world.given[::-1]].index(example["id"])
        assert pair["position"] == place

    def test_a_touched_file_is_read_and_found_the_same(self, world: World) -> None:
        os.utime(world.data / "a.parquet")
        summary, asked = world.again()
        assert not asked and not summary["why"]

    def test_a_file_that_did_not_change_is_not_read_again(self, world: World) -> None:
        quick_worlds.write(world.data / "b.parquet", [quick_worlds.row(300)])
        world.again()
        path = world.data / "b.parquet"
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        summary, _ = world.again()
        assert not summary["why"]

    def test_the_other_half_arrives_and_wins_over_the_generated_one(self, world: World) -> None:
        text, image = world.lacking("text")[1], world.lacking("image")[0]
        before = world.rows()
        text["text"] = "what it is in truth"
        image["image"] = quick_worlds.row(900)["image"]
        world.write()
        summary, asked = world.again()
        assert not asked
        assert summary["why"] == {"observed half changed": 2}
        after = world.rows()
        for each in (text, image):
            assert after[each["id"]]["status"] == "observed"
            assert after[each["id"]]["text"] == each["text"]
            assert after[each["id"]]["image"] == each["image"]
        assert world.history() == {each["id"]: before[each["id"]] for each in (text, image)}

    def test_with_a_limit_the_rest_waits_for_the_next_run(self, world: World) -> None:
        new = [quick_worlds.row(n, "text") for n in range(200, 205)]
        quick_worlds.write(world.data / "b.parquet", new)
        summary, asked = world.again(limit=2)
        assert (len(asked), summary["held_back"]) == (2, 3)
        _, more = world.again()
        assert asked | more == _ids(new) and not asked & more


class TestColumns:
    def test_other_pass_through_values_are_taken_over_without_generating(
        self, world: World
    ) -> None:
        before = world.rows()
        for each in world.given[::3]:
            each["note"] = "another note"
        world.write()
        summary, asked = world.again()
        assert not asked
        assert summary["why"] == {"other columns changed": len(world.given[::3])}
        after = world.rows()
        assert {row_id: each["note"] for row_id, each in after.items()} == {
            each["id"]: each["note"] for each in world.given
        }
        assert {row_id: each | {"note": 0} for row_id, each in after.items()} == {
            row_id: each | {"note": 0} for row_id, each in before.items()
        }
        assert not world.history()
        summary, _ = world.again()
        assert not summary["why"] and not summary["rewritten"]

    def test_a_column_more_and_a_column_less(self, world: World) -> None:
        before = world.rows()
        for number, each in enumerate(world.given):
            each["size"] = str(number)
        world.write(extra=("size",))
        _, asked = world.again()
        assert not asked
        after = world.rows()
        assert {row_id: each["size"] for row_id, each in after.items()} == {
            each["id"]: each["size"] for each in world.given
        }
        kept = ("image", "text", "status", "missing", "reason", "completion")
        for row_id, each in after.items():
            assert "note" not in each
            assert {name: each[name] for name in kept} == {n: before[row_id][n] for n in kept}

    def test_captions_that_become_lists_of_the_same(self, world: World) -> None:
        before = world.rows()
        table = pq.read_table(world.data / "a.parquet")
        lists = [None if text is None else [text] for text in table["text"].to_pylist()]
        table = table.set_column(2, "text", pa.array(lists, pa.list_(pa.string())))
        pq.write_table(table, world.data / "a.parquet")
        _, asked = world.again()
        assert not asked
        for row_id, each in world.rows().items():
            text = before[row_id]["text"]
            assert each["text"] == (None if text is None else [text])


def _all_generated(world: World) -> set[str]:
    return _ids(world.lacking("text")) | _ids(world.lacking("image"))


def _texts(world: World) -> set[str]:
    return _ids(world.lacking("text"))


def _images(world: World) -> set[str]:
    return _ids(world.lacking("image"))


def _none(world: World) -> set[str]:
    return set()


def _rejected(world: World) -> set[str]:
    return {BLANK}


PAINTER = {"kind": "tests.quick_parts:QuickPainter", "style": "bold"}
RUN = {"shard_size": 8, "block_size": 4}
SETTINGS: dict[str, tuple[dict[str, Any], Callable[[World], set[str]], set[str]]] = {
    "the captioner's": ({"captioner": CAPTIONER | {"style": "bold"}}, _texts, {"captioner"}),
    "the image generator's": ({"image_generator": PAINTER}, _images, {"image_generator"}),
    "how captions are chosen": (
        {"selection": {"caption": {"lambda2": 0.3}}},
        _texts,
        {"selection.caption"},
    ),
    "how many candidates": ({"generation": {"n": 3}}, _all_generated, {"generation"}),
    "more attempts": ({"generation": {"n": 2, "attempts": 3}}, _rejected, {"attempts"}),
    "the seed": ({"run": RUN | {"seed": 1}}, _all_generated, {"run.seed"}),
    "what is retrieved": (
        {
            "knowledge_base": {
                "mapping": {"method": "start"},
                "retrieval": {"k": 3},
                "device": "cpu",
            }
        },
        _all_generated,
        {"knowledge_base"},
    ),
    "sizes of shards and blocks": ({"run": {"shard_size": 5, "block_size": 3}}, _none, set()),
    "the exports": ({"export": [{"format": "parquet"}]}, _none, set()),
    "the limits of a run": ({"run": RUN | {"max_deleted_share": 0.5}}, _none, set()),
    "where knowledge bases compute": (
        {"knowledge_base": {"mapping": {"method": "start"}, "device": "auto"}},
        _none,
        set(),
    ),
}


class TestSettings:
    @pytest.mark.parametrize("name", SETTINGS)
    def test_a_changed_setting_redoes_the_rows_that_it_touches_and_says_so_before(
        self, world: World, name: str
    ) -> None:
        changes, touched, sections = SETTINGS[name]
        before = world.rows()
        world.change(**changes)
        plan = world.job().plan()
        expected = touched(world)
        assert plan.why == ({"settings changed": len(expected)} if expected else {})
        assert plan.sections == dict.fromkeys(sections, len(expected))
        summary, asked = world.again()
        assert asked == expected
        assert summary["why"] == plan.why
        after = world.rows()
        assert {r: each for r, each in after.items() if r not in expected} == {
            r: each for r, each in before.items() if r not in expected
        }
        assert _none(world) == world.again()[1]

    def test_remembered_candidates_are_chosen_from_anew_and_nothing_is_asked_for(
        self, world: World
    ) -> None:
        world.change(run=RUN | {"seed": 1, "remember": True})
        assert world.again()[1] == _all_generated(world)
        before = world.rows()
        world.change(selection={"caption": {"lambda2": 0.9}, "image": {"lambda2": 0.9}})
        summary, asked = world.again()
        assert summary["why"] == {"settings changed": len(_all_generated(world))}
        assert asked == set()
        after = world.rows()
        for row_id in _all_generated(world):
            old, new = before[row_id]["completion"], after[row_id]["completion"]
            seeds = [[c["seed"] for c in each["candidates"]] for each in (old, new)]
            assert seeds[0] == seeds[1] and old["run_id"] != new["run_id"]

    def test_remembering_is_refused_where_several_processes_would_write(self, world: World) -> None:
        world.change(run={"remember": True}, engine={"kind": "dask"})
        with pytest.raises(ConfigError, match="run.remember needs engine local; got engine dask"):
            world.job()

    def test_an_export_more_is_written_and_nothing_else(self, world: World) -> None:
        files = {p: p.stat().st_mtime_ns for p in (world.folder / "runs").rglob("*.parquet")}
        world.change(export=[{"format": "parquet"}])
        world.again()
        exported = pq.read_table(world.folder / "runs/quick/exports/parquet/data")
        assert len(exported) == len(world.given) - 2 - len(_rejected(world))
        assert files == {path: path.stat().st_mtime_ns for path in files}

    def test_a_new_knowledge_base_redoes_rows_where_it_is_asked_to(self, world: World) -> None:
        world.change(run=RUN | {"on_kb_change": "redo"})
        assert world.again()[1] == _all_generated(world), "rows were made without that word"
        assert not world.again()[1]
        quick_worlds.write(world.data / "b.parquet", [quick_worlds.row(n) for n in range(300, 320)])
        summary, asked = world.again()
        assert asked == _all_generated(world)
        assert summary["sections"] == {"content of the knowledge base": len(asked)}
        world.change(run=RUN)
        quick_worlds.write(world.data / "c.parquet", [quick_worlds.row(n) for n in range(320, 340)])
        world.again()
        assert not world.again()[1]


class TestSummary:
    def test_it_tells_what_changed_and_what_failed_and_why(self, world: World) -> None:
        world.change(captioner=CAPTIONER | {"fails": "0"})
        text = world.lacking("text")[0]
        summary, asked = world.again()
        failed = sorted(row_id for row_id in asked if row_id.endswith("0"))
        assert failed
        assert summary["outcomes"]["failed"] == len(failed)
        (fault,) = summary["faults"]["failed"]
        assert fault["reason"] == "null; the server said 500"
        assert fault["rows"] == len(failed) and set(fault["ids"]) <= set(failed)
        lines = told(summary)
        assert lines[0].startswith(f"since the last run: {TEXTS} settings changed")
        assert f"captioner ({TEXTS})" in lines[0]
        assert any(line.startswith(f"{len(failed)} failed: null; the server") for line in lines)
        kept = world.folder / "runs/quick/summaries" / f"{summary['run_id']}.json"
        assert kept.is_file() and text["id"] in world.rows()

    def test_a_run_with_nothing_new_says_that_and_writes_nothing(self, world: World) -> None:
        world.again()  # the folder was copied, and config.yaml names it
        runs = world.folder / "runs"
        files = {p: p.stat().st_mtime_ns for p in runs.rglob("*") if p.name != "lock"}
        summary, _ = world.again()
        assert told(summary)[0] == "since the last run: nothing new"
        assert files == {p: p.stat().st_mtime_ns for p in runs.rglob("*") if p.name != "lock"}
