"""A whole run on real pictures with the example's checkpoints, in this process."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from generators.blip2 import Blip2Captioner
from generators.sdxl import SdxlImageGenerator
from kb.mapping import NoCompletePairs
from pipeline.config.config import load_config
from pipeline.dataset.dataset import DatasetError
from pipeline.dataset.schema import completed_schema
from pipeline.job import Job
from pipeline.storage.errors import ConfigError, RunFailed, RunLocked
from tests import quick_worlds
from tests.worlds import SCENES, scene_rows, write_world

BROKEN = {"id": "broken", "image": {"bytes": b"no image", "path": None}, "text": "a red apple"}
NOTHING = {"id": "nothing", "image": None, "text": " \t"}


def run(config: Path, **options: Any) -> tuple[Job, dict[str, Any]]:
    job = Job(load_config(config))
    with job.lock():
        job.begin()
        job.build()
        return job, dict(job.complete(**options))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [*scene_rows(40, 3, 3), BROKEN, NOTHING]
    return write_world(tmp_path_factory.mktemp("world"), rows, knowledge_base={})


@pytest.fixture(scope="module")
def done(world: Path) -> tuple[Job, dict[str, Any]]:
    return run(world)


@pytest.fixture(scope="module")
def rows(done: tuple[Job, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in done[0].completed().to_table().to_pylist()}


@pytest.fixture(scope="module")
def given(world: Path) -> dict[str, dict[str, Any]]:
    return {r["id"]: r for r in pq.read_table(world.parent / "rows.parquet").to_pylist()}


class TestCompletedDataset:
    def test_every_input_row_has_one_outcome_and_the_counts_sum(
        self, done: tuple[Job, dict[str, Any]], given: dict[str, Any]
    ) -> None:
        job, summary = done
        table = job.completed().to_table()
        assert sorted(table["id"].to_pylist()) == sorted(given)
        assert dict(Counter(table["status"].to_pylist())) == {
            "observed": 40,
            "completed": 7,
            "rejected": 1,
        }
        assert sum(summary["outcomes"].values()) == summary["rows"] == len(given)

    def test_observed_halves_are_byte_identical(self, rows: Any, given: Any) -> None:
        for row_id, row in rows.items():
            if row["missing"] == "text" or row["status"] == "observed":
                assert row["image"] == given[row_id]["image"]
            if row["missing"] == "image" or row["status"] == "observed":
                assert row["text"] == given[row_id]["text"]
            assert row["ground"] == given[row_id]["ground"]

    def test_a_row_says_which_half_was_missing_and_why(self, rows: Any, given: Any) -> None:
        for row_id, row in rows.items():
            source = given[row_id]
            if row["status"] == "observed":
                assert (row["missing"], row["reason"], row["completion"]) == (None, None, None)
            elif source["text"] is None:
                assert (row["missing"], row["reason"]) == ("text", "no text in the row")
        assert (rows["broken"]["missing"], rows["broken"]["reason"]) == ("image", "undecodable")
        assert rows["nothing"]["status"] == "rejected"
        assert rows["nothing"]["reason"] == "image: no image in the row; text: only white space"

    def test_a_completed_row_can_be_traced(self, done: Any, rows: Any) -> None:
        job, summary = done
        pairs = set(job.knowledge.checked().pairs["id"].to_pylist())
        for row in rows.values():
            if row["status"] != "completed":
                continue
            made = row["completion"]
            assert made["generator"] == ("blip2" if row["missing"] == "text" else "sdxl")
            assert made["revision"].startswith("files-")
            assert made["kb_version"] == job.knowledge.checked().version
            assert made["run_id"] == summary["run_id"]
            assert made["prompt"]
            assert len(made["candidates"]) in (2, 4)
            best = made["candidates"][made["chosen"]]
            assert [example["id"] for example in made["examples"]] == best["examples"]
            for example in made["examples"]:
                assert example["id"] in pairs and example["id"] != row["id"]
                assert -1 <= example["intra"] <= 1 and -1 <= example["cross"] <= 1
                assert row["missing"] == "image" or example["text"] in made["prompt"]
            assert best["valid"] and best["score"] == made["score"]
            valid = [c["score"] for c in made["candidates"] if c["valid"]]
            assert best["score"] == max(valid)
            if row["missing"] == "text":
                assert best["text"] == row["text"]
        grounded = [row for row in rows.values() if (row["completion"] or {}).get("examples")]
        assert grounded

    def test_generated_pictures_decode(self, rows: Any) -> None:
        made = [row for row in rows.values() if row["missing"] == "image"]
        assert len(made) == 4
        for row in made:
            if row["status"] == "completed":
                with Image.open(io.BytesIO(row["image"]["bytes"])) as picture:
                    assert picture.size == (64, 64)

    def test_every_part_has_the_one_schema(self, done: Any) -> None:
        job, _ = done
        schema = completed_schema(False, job.sources.dataset.extra_schema)
        for path in (job.folder / "completed").glob("*.parquet"):
            written = pq.read_schema(path)
            assert written.equals(schema)
            assert written.metadata == schema.metadata

    def test_datasets_decodes_every_image(self, done: Any, tmp_path: Path) -> None:
        from datasets import load_dataset

        loaded = load_dataset(
            "parquet",
            data_files=str(done[0].folder / "completed" / "part-*.parquet"),
            split="train",
            cache_dir=str(tmp_path),
        )
        assert len(loaded) == 48
        for row in loaded:
            if row["status"] in ("observed", "completed"):
                assert row["image"].size[0] > 0


class TestRerun:
    def test_nothing_new_loads_no_generator_and_writes_nothing(
        self, done: Any, world: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: Any) -> None:
            raise AssertionError("a generator was loaded")

        monkeypatch.setattr(Blip2Captioner, "load", refuse)
        monkeypatch.setattr(SdxlImageGenerator, "load", refuse)
        files = {p: p.stat().st_mtime_ns for p in done[0].folder.rglob("*") if p.is_file()}
        _, summary = run(world)
        assert summary["outcomes"] == done[1]["outcomes"]
        after = {p: p.stat().st_mtime_ns for p in done[0].folder.rglob("*") if p.is_file()}
        after.pop(done[0].folder / "lock"), files.pop(done[0].folder / "lock")
        assert after == files

    def test_new_rows_and_rows_that_became_whole_are_all_that_is_done(self, tmp_path: Path) -> None:
        rows = quick_worlds.rows(40, 3, 2)
        quick_worlds.write(tmp_path / "data" / "rows.parquet", rows)
        world = quick_worlds.config(tmp_path)
        first, _ = run(world)
        before = {r["id"]: r for r in first.completed().to_table().to_pylist()}
        lacking = [row for row in rows if row["text"] is None]
        lacking[0]["text"] = "now it has a name"
        gone = next(row for row in rows if row["text"] and row["image"])
        rows.remove(gone)
        rows.append(quick_worlds.row(len(rows) + 1, "text"))
        quick_worlds.write(tmp_path / "data" / "rows.parquet", rows[::-1])
        second, summary = run(world)
        after = {r["id"]: r for r in second.completed().to_table().to_pylist()}
        assert sorted(after) == sorted(row["id"] for row in rows)
        assert after[lacking[0]["id"]]["text"] == "now it has a name"
        assert after[lacking[0]["id"]]["status"] == "observed"
        for row in lacking[1:]:
            assert after[row["id"]] == before[row["id"]]
        new = [r for r in after.values() if (r["completion"] or {}).get("run_id") == second.run_id]
        assert [r["id"] for r in new] == [rows[-1]["id"]]
        kept = pa.concat_tables(pq.read_table(p) for p in (second.folder / "history").glob("*"))
        assert kept["id"].to_pylist() == [lacking[0]["id"]]
        assert summary["rewritten"] >= 1

    def test_limit_holds_rows_back_for_the_next_run(self, tmp_path: Path) -> None:
        quick_worlds.write(tmp_path / "data" / "rows.parquet", quick_worlds.rows(40, 3, 0))
        world = quick_worlds.config(tmp_path)
        _, summary = run(world, limit=1)
        assert summary["outcomes"]["completed"] == 1
        _, summary = run(world)
        assert summary["outcomes"]["completed"] == 3

    def test_rows_that_vanish_in_numbers_stop_the_run(self, tmp_path: Path) -> None:
        rows = quick_worlds.rows(40, 1, 0)
        quick_worlds.write(tmp_path / "data" / "rows.parquet", rows)
        world = quick_worlds.config(tmp_path)
        first, _ = run(world)
        quick_worlds.write(tmp_path / "data" / "rows.parquet", rows[:-10])
        with pytest.raises(RunFailed, match="10 of 41 rows vanished"):
            run(world)
        assert len(first.completed().to_table()) == 41

    @pytest.mark.slow
    def test_a_failed_row_is_tried_again_only_when_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = write_world(tmp_path, scene_rows(40, 2, 0))
        with monkeypatch.context() as broken:
            broken.setattr(
                Blip2Captioner, "_draw", lambda self, jobs: (_ for _ in ()).throw(MemoryError())
            )
            _, summary = run(world)
        assert summary["outcomes"]["failed"] == 2
        assert run(world)[1]["outcomes"]["failed"] == 2
        _, summary = run(world, retry_failed=True)
        assert summary["outcomes"] == {"observed": 40, "completed": 2, "rejected": 0, "failed": 0}


class TestRefusals:
    def test_two_runs_never_overlap(self, tmp_path: Path) -> None:
        config = load_config(write_world(tmp_path, scene_rows(2, 1, 0)))
        with Job(config).lock(), pytest.raises(RunLocked, match="another run"), Job(config).lock():
            pass
        with Job(config).lock():
            pass

    def test_no_complete_pair_says_what_to_do(self, tmp_path: Path) -> None:
        world = write_world(tmp_path, scene_rows(0, 3, 2))
        with pytest.raises(NoCompletePairs, match="no complete pair"):
            run(world)

    def test_duplicate_ids_name_both_rows(self, tmp_path: Path) -> None:
        rows = scene_rows(3, 0, 0)
        rows.append(rows[1])
        world = write_world(tmp_path, rows)
        with pytest.raises(DatasetError, match=r"rows\.parquet row 1 and rows\.parquet row 3"):
            run(world)

    def test_a_missing_model_folder_is_named(self, tmp_path: Path) -> None:
        world = write_world(
            tmp_path, scene_rows(3, 1, 0), captioner={"kind": "blip2", "model": "./x"}
        )
        with pytest.raises(ConfigError, match=r"captioner\.model: no such folder: .*x"):
            Job(load_config(world)).plan()


def test_the_demo_is_the_example_that_the_tests_read() -> None:
    config = load_config(SCENES / "dmc.yaml")
    assert config.dataset.path == "incomplete.parquet"
    assert config.folder == SCENES.parents[1] / "runs" / "scenes"
