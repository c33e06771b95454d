"""A rerun does what is new in the data and nothing else, and tells what it did."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger.ledger import Ledger
from pipeline.ledger.summary import told
from tests import quick_worlds
from tests.quick_worlds import FinishedRun


class TestData:
    def test_a_file_more_and_a_grown_knowledge_base_touch_the_new_rows_alone(
        self, finished: FinishedRun
    ) -> None:
        before, version = finished.rows(), finished.job().knowledge.checked().version
        new = [
            quick_worlds.row(n, lacks) for n, lacks in ((200, "text"), (201, "image"), (202, None))
        ]
        quick_worlds.write(finished.data / "b.parquet", new)
        summary, asked = finished.again()
        assert asked == {"row 200", "row 201"}
        assert summary["why"] == {"new": 3}
        after = finished.rows()
        assert finished.job().knowledge.checked().version != version
        assert {row_id: after[row_id] for row_id in before} == before

    def test_reordered_renamed_and_resharded_input_is_nothing_new(
        self, finished: FinishedRun
    ) -> None:
        before = finished.rows()
        (finished.data / "a.parquet").unlink()
        shuffled = finished.given[::-1]
        quick_worlds.write(finished.data / "x.parquet", shuffled[:30])
        quick_worlds.write(finished.data / "deep" / "y.parquet", shuffled[30:])
        summary, asked = finished.again()
        assert not asked and not summary["why"] and not summary["rewritten"]
        assert finished.rows() == before

    def test_pairs_are_found_again_where_they_lie_now(self, finished: FinishedRun) -> None:
        (finished.data / "a.parquet").unlink()
        quick_worlds.write(finished.data / "x.parquet", finished.given[::-1])
        quick_worlds.write(finished.data / "y.parquet", [quick_worlds.row(200, "image")])
        summary, asked = finished.again()
        assert asked == {"row 200"}
        made = finished.rows()["row 200"]["completion"]
        (example,) = made["examples"]
        pairs = finished.job().knowledge.checked().pairs.to_pylist()
        (pair,) = [each for each in pairs if each["id"] == example["id"]]
        assert pair["file"] == "x.parquet"
        place = [each["id"] for each in finished.given[::-1]].index(example["id"])
        assert pair["position"] == place

    def test_a_touched_file_is_read_and_found_the_same(self, finished: FinishedRun) -> None:
        os.utime(finished.data / "a.parquet")
        summary, asked = finished.again()
        assert not asked and not summary["why"]

    def test_a_file_that_did_not_change_is_not_read_again(self, finished: FinishedRun) -> None:
        quick_worlds.write(finished.data / "b.parquet", [quick_worlds.row(300)])
        finished.again()
        path = finished.data / "b.parquet"
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        summary, _ = finished.again()
        assert not summary["why"]

    def test_the_other_half_arrives_and_wins_over_the_generated_one(
        self, finished: FinishedRun
    ) -> None:
        text, image = finished.lacking("text")[1], finished.lacking("image")[0]
        before = finished.rows()
        text["text"] = "what it is in truth"
        image["image"] = quick_worlds.row(900)["image"]
        finished.write()
        summary, asked = finished.again()
        assert not asked
        assert summary["why"] == {"observed half changed": 2}
        after = finished.rows()
        for each in (text, image):
            assert after[each["id"]]["status"] == "observed"
            assert after[each["id"]]["text"] == each["text"]
            assert after[each["id"]]["image"] == each["image"]
        assert finished.history() == {each["id"]: before[each["id"]] for each in (text, image)}

    def test_what_leaves_is_kept_though_shards_go_and_others_are_written_again(
        self, finished: FinishedRun
    ) -> None:
        finished.change(run={"max_deleted_share": 1})
        before = finished.rows()
        shards = [
            [row["id"] for row in manifest.rows.to_pylist() if row["status"] == "completed"]
            for manifest in Ledger(finished.folder / "runs/quick").load().newest_first()
        ]
        last, earlier = [ids for ids in shards if len(ids) > 3][:2]
        leaving = [*last, *earlier[:1]], earlier[1:2], earlier[2:3]
        for ids in leaving:
            finished.given[:] = [each for each in finished.given if each["id"] not in ids]
            finished.write()
            finished.again()
        assert finished.history() == {row_id: before[row_id] for ids in leaving for row_id in ids}

    def test_with_a_limit_the_rest_waits_for_the_next_run(self, finished: FinishedRun) -> None:
        new = [quick_worlds.row(n, "text") for n in range(200, 205)]
        quick_worlds.write(finished.data / "b.parquet", new)
        summary, asked = finished.again(limit=2)
        assert (len(asked), summary["held_back"]) == (2, 3)
        _, more = finished.again()
        assert asked | more == {each["id"] for each in new} and not asked & more


class TestColumns:
    def test_other_pass_through_values_are_taken_over_without_generating(
        self, finished: FinishedRun
    ) -> None:
        before = finished.rows()
        for each in finished.given[::3]:
            each["note"] = "another note"
        finished.write()
        summary, asked = finished.again()
        assert not asked
        assert summary["why"] == {"other columns changed": len(finished.given[::3])}
        after = finished.rows()
        assert {row_id: each["note"] for row_id, each in after.items()} == {
            each["id"]: each["note"] for each in finished.given
        }
        assert {row_id: each | {"note": 0} for row_id, each in after.items()} == {
            row_id: each | {"note": 0} for row_id, each in before.items()
        }
        assert not finished.history()
        summary, _ = finished.again()
        assert not summary["why"] and not summary["rewritten"]

    def test_a_column_more_and_a_column_less(self, finished: FinishedRun) -> None:
        before = finished.rows()
        for number, each in enumerate(finished.given):
            each["size"] = str(number)
        finished.write(extra=("size",))
        _, asked = finished.again()
        assert not asked
        after = finished.rows()
        assert {row_id: each["size"] for row_id, each in after.items()} == {
            each["id"]: each["size"] for each in finished.given
        }
        kept = ("image", "text", "status", "missing", "reason", "completion")
        for row_id, each in after.items():
            assert "note" not in each
            assert {name: each[name] for name in kept} == {n: before[row_id][n] for n in kept}

    def test_captions_that_become_lists_of_the_same(self, finished: FinishedRun) -> None:
        before = finished.rows()
        table = pq.read_table(finished.data / "a.parquet")
        lists = [None if text is None else [text] for text in table["text"].to_pylist()]
        table = table.set_column(2, "text", pa.array(lists, pa.list_(pa.string())))
        pq.write_table(table, finished.data / "a.parquet")
        _, asked = finished.again()
        assert not asked
        for row_id, each in finished.rows().items():
            text = before[row_id]["text"]
            assert each["text"] == (None if text is None else [text])


class TestSummary:
    def test_it_tells_what_changed_and_what_failed_and_why(self, finished: FinishedRun) -> None:
        finished.change(captioner={"fails": "0"})
        text = finished.lacking("text")[0]
        summary, asked = finished.again()
        failed = sorted(row_id for row_id in asked if row_id.endswith("0"))
        assert failed
        assert summary["outcomes"]["failed"] == len(failed)
        (fault,) = summary["faults"]["failed"]
        assert fault["reason"] == "no text in the row; the server said 500"
        assert fault["rows"] == len(failed) and set(fault["ids"]) <= set(failed)
        lines, texts = told(summary), len(finished.lacking("text"))
        assert lines[0].startswith(f"since the last run: {texts} settings changed")
        assert f"captioner ({texts})" in lines[0]
        assert any(
            line.startswith(f"{len(failed)} failed: no text in the row; the server")
            for line in lines
        )
        kept = finished.folder / "runs/quick/summaries" / f"{summary['run_id']}.json"
        assert kept.is_file() and text["id"] in finished.rows()

    def test_a_run_with_nothing_new_says_that_and_writes_nothing(
        self, finished: FinishedRun
    ) -> None:
        finished.again()  # the folder was copied, and config.yaml names it
        runs = finished.folder / "runs"
        files = {p: p.stat().st_mtime_ns for p in runs.rglob("*") if p.name != "lock"}
        summary, _ = finished.again()
        assert told(summary)[0] == "since the last run: nothing new"
        assert files == {p: p.stat().st_mtime_ns for p in runs.rglob("*") if p.name != "lock"}
