"""A person's verdicts on generated halves: what they change, and that they last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from generators.base import derive_seed
from pipeline.export.settings import ExportSettings
from pipeline.ledger.review import Review, Reviewed
from pipeline.report import presentation
from pipeline.report.presentation import export_run
from pipeline.storage.errors import ConfigError
from tests import quick_worlds
from tests.quick_worlds import FinishedRun


def marks_of(rows: dict[str, dict[str, Any]], verdicts: dict[str, str]) -> dict[str, Any]:
    """Marks as the report exports them (its own test reads them from the page)."""
    return {
        "format": "rag4dmc-marks",
        "version": 1,
        "run": "quick",
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


def review(finished: FinishedRun, marks: dict[str, Any]) -> Reviewed:
    path = finished.folder / "marks.json"
    path.write_text(json.dumps(marks), encoding="utf-8")
    job = finished.job()
    with job.lock():
        return presentation.review(job, path)


def again(finished: FinishedRun, **options: Any) -> dict[str, dict[str, Any]]:
    """Run again; the completed dataset."""
    finished.again(**options)
    return finished.rows()


@pytest.fixture
def rows(finished: FinishedRun) -> dict[str, Any]:
    """The completed dataset before any mark."""
    return finished.rows()


@pytest.fixture
def texts(rows: dict[str, Any]) -> list[str]:
    return [i for i, row in rows.items() if row["missing"] == "text" and row["text"]]


@pytest.fixture
def image(rows: dict[str, Any]) -> str:
    return next(row_id for row_id, row in rows.items() if row["missing"] == "image")


class TestRejected:
    def test_it_is_generated_again_with_the_seeds_of_the_next_attempt(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str], image: str
    ) -> None:
        told = review(finished, marks_of(rows, {texts[0]: "reject", image: "reject"}))
        assert sorted(told.rejected) == sorted([texts[0], image])
        after = again(finished)
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
        history = [
            pq.read_table(path) for path in (finished.folder / "runs/quick/history").glob("*")
        ]
        kept = {row["id"]: row for table in history for row in table.to_pylist()}
        assert kept == {row_id: rows[row_id] for row_id in (texts[0], image)}

    def test_it_is_done_once_and_can_be_rejected_again(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(finished, marks_of(rows, {texts[0]: "reject"}))
        second = again(finished)
        assert again(finished) == second
        review(finished, marks_of(second, {texts[0]: "reject"}))
        third = again(finished)
        assert third[texts[0]]["completion"]["attempt"] == 3
        assert again(finished) == third

    def test_the_same_half_never_comes_again(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        finished.change(captioner={"same": True})
        stuck = again(finished)
        review(finished, marks_of(stuck, {texts[0]: "reject"}))
        after = again(finished)[texts[0]]
        assert (after["status"], after["text"]) == ("rejected", None)
        assert after["reason"].count("rejected in a review") == 2
        assert {c["reason"] for c in after["completion"]["candidates"]} == {"rejected in a review"}
        finished.change(captioner={"same": True, "style": "bold"})
        bold = again(finished)
        review(finished, marks_of(bold, {texts[0]: "reject"}))
        # Neither of the two that were rejected.
        finished.change(captioner={"style": "plain"})
        assert again(finished)[texts[0]]["status"] == "rejected"

    def test_its_first_attempts_never_come_back_with_other_settings(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(finished, marks_of(rows, {texts[0]: "reject"}))
        again(finished)
        finished.change(captioner={"style": "bold"})
        after = again(finished)
        assert "bold" in after[texts[0]]["text"]
        assert after[texts[0]]["completion"]["attempt"] == 2
        assert after[texts[1]]["completion"]["attempt"] == 1

    def test_until_then_it_is_in_no_export(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(finished, marks_of(rows, {texts[0]: "reject", texts[1]: "accept"}))

        def exported() -> tuple[set[str], dict[str, int]]:
            done = export_run(finished.job(), ExportSettings(only="completed"))
            table = pq.read_table(done.folder / "data")
            return set(table["id"].to_pylist()), done.left_out

        ids, left_out = exported()
        assert texts[0] not in ids and texts[1] in ids
        assert left_out["rejected in review"] == 1
        card = (finished.folder / "runs/quick/exports/parquet/README.md").read_text()
        assert "A person looked at 1 of the completed rows and accepted them." in card
        again(finished)
        assert texts[0] in exported()[0]

    def test_accepted_halves_are_exported_whatever_their_score(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(finished, marks_of(rows, {texts[0]: "accept"}))
        done = export_run(
            finished.job(), ExportSettings(only="completed", best={"text": 0, "image": 0})
        )
        assert pq.read_table(done.folder / "data")["id"].to_pylist() == [texts[0]]


class TestAccepted:
    def test_nothing_touches_it_again(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str], image: str
    ) -> None:
        review(finished, marks_of(rows, {texts[0]: "accept", image: "accept"}))
        quick_worlds.write(finished.data / "b.parquet", [quick_worlds.row(n) for n in (200, 201)])
        finished.change(captioner={"style": "bold"}, run={"on_kb_change": "redo", "seed": 5})
        after = again(finished, retry_failed=True)
        assert after[texts[0]] == rows[texts[0]]
        assert after[image] == rows[image]
        assert "bold" in after[texts[1]]["text"]

    def test_a_real_half_that_arrives_wins(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(finished, marks_of(rows, {texts[0]: "accept"}))
        next(row for row in finished.given if row["id"] == texts[0])["text"] = "the real name"
        finished.write()
        after = again(finished)
        assert (after[texts[0]]["text"], after[texts[0]]["status"]) == ("the real name", "observed")

    def test_it_holds_for_the_picture_that_was_looked_at(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(finished, marks_of(rows, {texts[0]: "accept"}))
        by_id = {row["id"]: row for row in finished.given}
        by_id[texts[0]]["image"] = by_id[texts[1]]["image"]
        finished.write()
        finished.change(captioner={"style": "bold"})
        assert "bold" in again(finished)[texts[0]]["text"]

    def test_a_row_that_left_and_came_back_has_a_half_that_nobody_looked_at(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(finished, marks_of(rows, {texts[0]: "reject"}))
        second = again(finished)
        review(finished, marks_of(second, {texts[0]: "accept"}))
        whole, finished.given = finished.given, [r for r in finished.given if r["id"] != texts[0]]
        finished.write()
        assert texts[0] not in again(finished)
        finished.given = whole
        finished.write()
        # What was rejected does not come back, though its attempt is made again.
        assert again(finished)[texts[0]]["text"] != rows[texts[0]]["text"]
        assert not TestMarks().said(finished)
        finished.change(captioner={"style": "bold"})
        assert "bold" in again(finished)[texts[0]]["text"]

    def test_it_can_be_rejected_later(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(finished, marks_of(rows, {texts[0]: "accept"}))
        review(finished, marks_of(rows, {texts[0]: "reject"}))
        assert again(finished)[texts[0]]["completion"]["attempt"] == 2


class TestMarks:
    def test_the_report_shows_them(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        review(finished, marks_of(rows, {texts[0]: "accept", texts[1]: "reject"}))
        page = (finished.folder / "runs/quick/report/index.html").read_text(encoding="utf-8")
        assert "Reviewed: 1 accepted, 1 rejected and not yet generated again" in page
        assert self.said(finished) == {texts[0]: "accepted", texts[1]: "rejected"}
        again(finished)
        assert self.said(finished) == {texts[0]: "accepted", texts[1]: "redone"}

    def said(self, finished: FinishedRun) -> dict[str, str]:
        page = (finished.folder / "runs/quick/report/index.html").read_text(encoding="utf-8")
        cards = json.loads(page.split('id="data">')[1].split("</script>")[0])["cards"]
        return {card["id"]: card["review"] for card in cards if "review" in card}

    def test_the_same_file_twice_says_nothing_new(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        marks = marks_of(rows, {texts[0]: "accept", texts[1]: "reject"})
        review(finished, marks)
        kept = (finished.folder / "runs/quick/review.json").read_bytes()
        told = review(finished, marks)
        assert (told.accepted, told.rejected, told.known) == ([], [], 2)
        assert (finished.folder / "runs/quick/review.json").read_bytes() == kept

    def test_marks_on_what_is_not_there_are_named_and_the_others_count(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        observed = next(row_id for row_id, row in rows.items() if row["status"] == "observed")
        marks = marks_of(rows, {texts[0]: "accept", texts[1]: "reject"})
        gone, whole = dict(marks["marks"][0], id="gone"), dict(marks["marks"][0], id=observed)
        marks["marks"] += [gone, whole]
        told = review(finished, marks)
        assert (told.accepted, told.rejected) == ([texts[0]], [texts[1]])
        assert told.told() == (
            "1 ignored, no row of this run has the id (gone);"
            f" 1 ignored, the row has no generated half ({observed})"
        )

    def test_marks_on_a_half_that_was_generated_again_do_not_count(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        finished.change(captioner={"style": "bold"})
        after = again(finished)
        # The very same seed and attempt, but of other settings: the run tells them apart.
        marks = marks_of(after, {texts[0]: "reject"})
        marks["marks"][0]["run_id"] = rows[texts[0]]["completion"]["run_id"]
        with pytest.raises(ConfigError, match="no mark counts: 1 ignored, .* generated again"):
            review(finished, marks)
        assert not Review(finished.folder / "runs/quick").load().verdicts

    @pytest.mark.parametrize(
        ("broken", "told"),
        [
            ({"run": "other"}, "the marks are of run 'other'; this config's is 'quick'"),
            ({"format": "notes"}, "not marks that a report exported"),
            ({"version": 2}, "version: input should be 1; got 2"),
            ({"marks": []}, "holds no mark"),
            ({"marks": [{"id": "a", "mark": "maybe"}]}, "marks.0.mark: input should be 'accept'"),
        ],
    )
    def test_a_wrong_file_is_refused_in_a_line(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str], broken: Any, told: str
    ) -> None:
        with pytest.raises(ConfigError, match=r"marks\.json: ") as error:
            review(finished, marks_of(rows, {texts[0]: "accept"}) | broken)
        assert told in str(error.value) and "\n" not in str(error.value)

    def test_a_row_that_is_marked_twice_is_refused(
        self, finished: FinishedRun, rows: dict[str, Any], texts: list[str]
    ) -> None:
        marks = marks_of(rows, {texts[0]: "accept"})
        marks["marks"] *= 2
        with pytest.raises(ConfigError, match="is marked twice"):
            review(finished, marks)

    def test_nothing_completed_says_what_to_do_first(self, tmp_path: Path) -> None:
        quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(2, 1, 0))
        config = quick_worlds.config(tmp_path)
        with pytest.raises(ConfigError, match="first: rag4dmc run CONFIG"):
            review(FinishedRun(config, []), {"format": "rag4dmc-marks"})
