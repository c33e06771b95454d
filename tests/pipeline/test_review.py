"""A person's verdicts on generated halves: what they change, and that they last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from generators.base import derive_seed
from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.export import ExportSettings
from pipeline.job import Job
from pipeline.review import Review, Reviewed
from tests.worlds import emoji_rows, settings, write_rows, write_world

CAPTIONER = {"kind": "tests.captioners:NumberCaptioner"}


def run(config: Path, **options: Any) -> dict[str, dict[str, Any]]:
    job = Job(load_config(config))
    with job.lock():
        job.begin()
        job.build()
        job.complete(**options)
    return {row["id"]: row for row in job.completed().to_table().to_pylist()}


def marks_of(rows: dict[str, dict[str, Any]], verdicts: dict[str, str]) -> dict[str, Any]:
    """Marks as the report exports them (its own test reads them from the page)."""
    return {
        "format": "rag4dmc-marks",
        "version": 1,
        "run": "small",
        "run_id": "of the report",
        "marks": [
            {
                "id": row,
                "mark": mark,
                "missing": rows[row]["missing"],
                "attempt": rows[row]["completion"]["attempt"],
                "seed": str(rows[row]["completion"]["seed"]),
                "run_id": rows[row]["completion"]["run_id"],
            }
            for row, mark in verdicts.items()
        ],
    }


def review(config: Path, marks: dict[str, Any]) -> Reviewed:
    path = config.parent / "marks.json"
    path.write_text(json.dumps(marks), encoding="utf-8")
    job = Job(load_config(config))
    with job.lock():
        return job.take_review(path)


def change(config: Path, **changes: Any) -> None:
    values = settings(**{"captioner": CAPTIONER} | changes)
    config.write_text(yaml.safe_dump(values), encoding="utf-8")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run with two texts and an image."""
    world = write_world(tmp_path_factory.mktemp("t"), emoji_rows(34, 2, 1), captioner=CAPTIONER)
    return world, run(world)


@pytest.fixture
def world(template: tuple[Path, Any], tmp_path: Path) -> Iterator[Path]:
    import shutil

    yield shutil.copytree(template[0].parent, tmp_path / "w") / "dmc.yaml"


@pytest.fixture
def rows(template: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return template[1]


@pytest.fixture
def texts(rows: dict[str, Any]) -> list[str]:
    return [row_id for row_id, row in rows.items() if row["missing"] == "text"]


@pytest.fixture
def image(rows: dict[str, Any]) -> str:
    return next(row_id for row_id, row in rows.items() if row["missing"] == "image")


class TestRejected:
    def test_it_is_generated_again_with_the_seeds_of_the_next_attempt(
        self, world: Path, rows: dict[str, Any], texts: list[str], image: str
    ) -> None:
        told = review(world, marks_of(rows, {texts[0]: "reject", image: "reject"}))
        assert sorted(told.rejected) == sorted([texts[0], image])
        after = run(world)
        for row_id in (texts[0], image):
            made = after[row_id]["completion"]
            assert made["attempt"] == 2
            assert [c["seed"] for c in made["candidates"]] == [
                derive_seed(0, row_id, number, 2) for number in range(2)
            ]
        assert after[texts[0]]["text"] != rows[texts[0]]["text"]
        assert after[image]["image"] != rows[image]["image"]
        others = set(rows) - {texts[0], image}
        assert all(after[row_id] == rows[row_id] for row_id in others)
        history = [pq.read_table(path) for path in (world.parent / "runs/small/history").glob("*")]
        kept = {row["id"]: row for table in history for row in table.to_pylist()}
        assert kept == {row_id: rows[row_id] for row_id in (texts[0], image)}

    @pytest.mark.slow
    def test_it_is_done_once_and_can_be_rejected_again(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(world, marks_of(rows, {texts[0]: "reject"}))
        second = run(world)
        assert run(world) == second
        review(world, marks_of(second, {texts[0]: "reject"}))
        third = run(world)
        assert third[texts[0]]["completion"]["attempt"] == 3
        assert run(world) == third

    @pytest.mark.slow
    def test_the_same_half_never_comes_again(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        change(world, captioner=CAPTIONER | {"same": True})
        stuck = run(world)
        review(world, marks_of(stuck, {texts[0]: "reject"}))
        after = run(world)[texts[0]]
        assert (after["status"], after["text"]) == ("rejected", None)
        assert after["reason"].count("rejected in a review") == 2
        assert {c["reason"] for c in after["completion"]["candidates"]} == {"rejected in a review"}
        change(world, captioner=CAPTIONER | {"same": True, "noun": "pear"})
        pear = run(world)
        review(world, marks_of(pear, {texts[0]: "reject"}))
        # Neither of the two that were rejected.
        change(world, captioner=CAPTIONER | {"same": True})
        assert run(world)[texts[0]]["status"] == "rejected"

    @pytest.mark.slow
    def test_its_first_attempts_never_come_back_with_other_settings(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(world, marks_of(rows, {texts[0]: "reject"}))
        run(world)
        change(world, captioner=CAPTIONER | {"noun": "pear"})
        after = run(world)
        assert "pear" in after[texts[0]]["text"]
        assert after[texts[0]]["completion"]["attempt"] == 2
        assert after[texts[1]]["completion"]["attempt"] == 1

    def test_until_then_it_is_in_no_export(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(world, marks_of(rows, {texts[0]: "reject", texts[1]: "accept"}))

        def exported() -> tuple[set[str], dict[str, int]]:
            done = Job(load_config(world)).export(ExportSettings(only="completed"))
            table = pq.read_table(done.folder / "data")
            return set(table["id"].to_pylist()), done.left_out

        ids, left_out = exported()
        assert texts[0] not in ids and texts[1] in ids
        assert left_out["rejected in review"] == 1
        card = (world.parent / "runs/small/exports/parquet/README.md").read_text()
        assert "A person looked at 1 of the generated halves and accepted them." in card
        run(world)
        assert texts[0] in exported()[0]


class TestAccepted:
    def test_nothing_touches_it_again(
        self, world: Path, rows: dict[str, Any], texts: list[str], image: str
    ) -> None:
        review(world, marks_of(rows, {texts[0]: "accept", image: "accept"}))
        other = emoji_rows(36, 2, 1)
        write_rows(world.parent / "rows.parquet", other)
        change(
            world,
            captioner=CAPTIONER | {"noun": "pear"},
            run={"shard_size": 8, "on_kb_change": "redo", "seed": 5},
        )
        after = run(world, retry_failed=True)
        assert after[texts[0]] == rows[texts[0]]
        assert after[image] == rows[image]
        assert "pear" in after[texts[1]]["text"]

    def test_a_real_half_that_arrives_wins(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(world, marks_of(rows, {texts[0]: "accept"}))
        given = emoji_rows(34, 2, 1)
        next(row for row in given if row["id"] == texts[0])["text"] = "the real name"
        write_rows(world.parent / "rows.parquet", given)
        after = run(world)
        assert (after[texts[0]]["text"], after[texts[0]]["status"]) == ("the real name", "observed")

    @pytest.mark.slow
    def test_it_holds_for_the_picture_that_was_looked_at(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(world, marks_of(rows, {texts[0]: "accept"}))
        given = emoji_rows(34, 2, 1)
        by_id = {row["id"]: row for row in given}
        by_id[texts[0]]["image"] = by_id[texts[1]]["image"]
        write_rows(world.parent / "rows.parquet", given)
        change(world, captioner=CAPTIONER | {"noun": "pear"})
        assert "pear" in run(world)[texts[0]]["text"]

    @pytest.mark.slow
    def test_it_can_be_rejected_later(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(world, marks_of(rows, {texts[0]: "accept"}))
        review(world, marks_of(rows, {texts[0]: "reject"}))
        assert run(world)[texts[0]]["completion"]["attempt"] == 2


class TestMarks:
    def test_the_report_shows_them(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(world, marks_of(rows, {texts[0]: "accept", texts[1]: "reject"}))
        page = (world.parent / "runs/small/report/index.html").read_text(encoding="utf-8")
        assert "Reviewed: 1 accepted, 1 rejected and not yet generated again" in page
        assert self.said(world) == {texts[0]: "accepted", texts[1]: "rejected"}
        run(world)
        Job(load_config(world)).report()
        assert self.said(world) == {texts[0]: "accepted", texts[1]: "redone"}

    def said(self, world: Path) -> dict[str, str]:
        page = (world.parent / "runs/small/report/index.html").read_text(encoding="utf-8")
        cards = json.loads(page.split('id="data">')[1].split("</script>")[0])["cards"]
        return {card["id"]: card["review"] for card in cards if "review" in card}

    def test_the_same_file_twice_says_nothing_new(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        marks = marks_of(rows, {texts[0]: "accept", texts[1]: "reject"})
        review(world, marks)
        kept = (world.parent / "runs/small/review.json").read_bytes()
        told = review(world, marks)
        assert (told.accepted, told.rejected, told.known) == ([], [], 2)
        assert (world.parent / "runs/small/review.json").read_bytes() == kept

    def test_marks_on_what_is_not_there_are_named_and_the_others_count(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        observed = next(row_id for row_id, row in rows.items() if row["status"] == "observed")
        marks = marks_of(rows, {texts[0]: "accept", texts[1]: "reject"})
        gone, whole = dict(marks["marks"][0], id="gone"), dict(marks["marks"][0], id=observed)
        marks["marks"] += [gone, whole]
        told = review(world, marks)
        assert (told.accepted, told.rejected) == ([texts[0]], [texts[1]])
        assert told.told() == (
            "1 ignored, no row of this run has the id (gone);"
            f" 1 ignored, the row has no generated half ({observed})"
        )

    def test_marks_on_a_half_that_was_generated_again_do_not_count(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        change(world, captioner=CAPTIONER | {"noun": "pear"})
        after = run(world)
        # The very same seed and attempt, but of other settings: the run tells them apart.
        marks = marks_of(after, {texts[0]: "reject"})
        marks["marks"][0]["run_id"] = rows[texts[0]]["completion"]["run_id"]
        with pytest.raises(ConfigError, match="no mark counts: 1 ignored, .* generated again"):
            review(world, marks)
        assert not Review(world.parent / "runs/small").load().verdicts

    @pytest.mark.parametrize(
        ("broken", "told"),
        [
            ({"run": "other"}, "the marks are of run 'other'; this config's is 'small'"),
            ({"format": "notes"}, "not marks that a report exported"),
            ({"version": 2}, "version: input should be 1; got 2"),
            ({"marks": []}, "holds no mark"),
            ({"marks": [{"id": "a", "mark": "maybe"}]}, "marks.0.mark: input should be 'accept'"),
        ],
    )
    def test_a_wrong_file_is_refused_in_a_line(
        self, world: Path, rows: dict[str, Any], texts: list[str], broken: Any, told: str
    ) -> None:
        with pytest.raises(ConfigError, match=r"marks\.json: ") as error:
            review(world, marks_of(rows, {texts[0]: "accept"}) | broken)
        assert told in str(error.value) and "\n" not in str(error.value)

    def test_a_row_that_is_marked_twice_is_refused(
        self, world: Path, rows: dict[str, Any], texts: list[str]
    ) -> None:
        marks = marks_of(rows, {texts[0]: "accept"})
        marks["marks"] *= 2
        with pytest.raises(ConfigError, match="is marked twice"):
            review(world, marks)

    def test_nothing_completed_says_what_to_do_first(self, tmp_path: Path) -> None:
        config = write_world(tmp_path, emoji_rows(2, 1, 0), captioner=CAPTIONER)
        with pytest.raises(ConfigError, match="first: rag4dmc run CONFIG"):
            review(config, {"format": "rag4dmc-marks"})
