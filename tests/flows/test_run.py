"""The flows against a real Prefect server: what it shows, and what the command line answers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from flows.cli import app
from tests import quick_worlds
from tests.generators.server import Server
from tests.task_runs import settled_task_runs
from tests.worlds import CHECKPOINTS, scene_rows, settings, write_rows, write_world


def command(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def one_line(result: Result) -> str:
    """The error, which must be a single line that names the program."""
    lines = result.stderr.strip().splitlines()
    told = [line for line in lines if line.startswith("rag4dmc: ")]
    assert len(told) == 1 and "Traceback" not in result.stderr, result.stderr
    return told[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), scene_rows(40, 3, 2))


@pytest.fixture(scope="module")
def first(server: None, world: Path) -> dict[str, Any]:
    result = command("run", world, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


class TestRun:
    def test_it_completes_the_dataset_and_writes_the_report(
        self, first: dict[str, Any], world: Path
    ) -> None:
        assert first["outcomes"] == {"observed": 40, "completed": 5, "rejected": 0, "failed": 0}
        assert Path(first["report"]).read_text(encoding="utf-8").startswith("<!")
        assert list(Path(first["completed"]).glob("part-*.parquet"))

    def test_the_server_shows_one_task_run_a_shard(self, first: dict[str, Any]) -> None:
        runs = settled_task_runs("shard-", count=7)
        # Forty whole rows make five shards of eight, the others one a missing half.
        assert Counter(run.name for run in runs) == Counter(f"shard-{n:06d}" for n in range(1, 8))
        assert all(run.state.is_completed() for run in runs)

    def test_again_it_does_nothing(self, first: dict[str, Any], world: Path) -> None:
        result = command("run", world)
        assert result.exit_code == 0
        assert "0 done in this run" in result.stdout
        assert first["report"] in result.stdout

    def test_fail_on_failed_counts_failed_rows(self, first: dict[str, Any], world: Path) -> None:
        assert command("run", world, "--fail-on-failed", 0).exit_code == 0

    def test_search_finds_the_pair_of_a_text(self, first: dict[str, Any], world: Path) -> None:
        pair = next(row for row in scene_rows(40, 0, 0))
        result = command("search", world, "--text", pair["text"], "--json")
        assert pair["id"] in {hit["id"] for hit in json.loads(result.stdout)}

    def test_export_writes_what_a_consumer_reads(self, first: dict[str, Any], world: Path) -> None:
        result = command("export", world, "--only", "completed")
        assert result.exit_code == 0 and result.stdout.startswith("5 rows in ")
        result = command("export", world, "--only", "completed", "--best", "image=0")
        assert result.exit_code == 0 and "2 below the score" in result.stdout
        result = command("export", world, "--only", "observed", "--name", "real")
        assert result.exit_code == 0 and result.stdout.split()[3].endswith("/exports/real;")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--best", "0.5"], "--best: must be text=NUMBER or image=NUMBER"),
            (["--min-score", "picture=0"], "--min-score: must be text=NUMBER or image=NUMBER"),
            (["--best", "image=2"], "export.best.image: input should be less than or equal to 1"),
            (["--name", ".."], "export.name: string should match pattern"),
            (["--min-score", "text=high"], "export.min_score.text: input should be a valid number"),
        ],
    )
    def test_a_wrong_filter_of_an_export_is_told(
        self, first: dict[str, Any], world: Path, options: list[str], message: str
    ) -> None:
        result = command("export", world, *options)
        assert result.exit_code == 2
        assert message in one_line(result)

    def test_a_locked_run_exits_with_3(self, first: dict[str, Any], world: Path) -> None:
        from pipeline.config.config import load_config
        from pipeline.job import Job

        with Job(load_config(world)).lock():
            result = command("run", world)
        assert result.exit_code == 3
        assert "another run holds the lock" in one_line(result)

    def test_build_mends_a_damaged_knowledge_base(self, first: dict[str, Any], world: Path) -> None:
        path = world.parent / "runs" / "small" / "kb" / "embeddings" / "text.npy"
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        result = command("search", world, "--text", "a red apple")
        assert result.exit_code == 2
        assert "first: rag4dmc build CONFIG" in one_line(result)
        result = command("build", world)
        assert result.exit_code == 0 and "knowledge base built" in result.stdout
        assert path.read_bytes() == whole
        assert command("search", world, "--text", "a red apple").exit_code == 0
        assert "knowledge base up to date" in command("build", world).stdout

    def test_no_complete_pair_exits_with_2(self, server: None, tmp_path: Path) -> None:
        result = command("run", write_world(tmp_path, scene_rows(0, 2, 1)))
        assert result.exit_code == 2
        assert "no complete pair" in one_line(result)

    def test_a_generator_whose_server_is_down_exits_with_1(
        self, server: None, tmp_path: Path
    ) -> None:
        # Pairs enough, and no NIQE of small pictures: nothing else to warn of.
        quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(40, 1, 0))
        with Server() as gone:
            captioner = gone.settings(kind="openai", retries=1)
        config = quick_worlds.config(
            tmp_path, captioner=captioner, selection={"image": {"niqe": "off"}}
        )
        result = command("run", config)
        assert result.exit_code == 1
        assert f"{captioner['base_url']} seems to be down" in one_line(result)

    def test_a_model_that_is_none_exits_with_2_before_the_build(
        self, server: None, tmp_path: Path
    ) -> None:
        captioner = {"kind": "blip2", "model": str(CHECKPOINTS / "sdxl")}
        result = command("run", write_world(tmp_path, scene_rows(4, 1, 0), captioner=captioner))
        assert result.exit_code == 2
        assert one_line(result).startswith("rag4dmc: captioner: ")
        assert not (tmp_path / "runs" / "small" / "kb").exists()


class TestRefusals:
    def refuse(self, tmp_path: Path, **changes: Any) -> str:
        path = tmp_path / "dmc.yaml"
        if not (tmp_path / "rows.parquet").exists():
            write_world(tmp_path, scene_rows(2, 1, 0))
        path.write_text(yaml.safe_dump(settings(**changes)), encoding="utf-8")
        result = command("inspect", path)
        assert result.exit_code == 2
        return one_line(result)

    def test_a_wrong_key_is_named(self, tmp_path: Path) -> None:
        assert "generation.m: unknown key" in self.refuse(tmp_path, generation={"m": 3})

    def test_a_wrong_value_is_named_with_its_rule(self, tmp_path: Path) -> None:
        told = self.refuse(tmp_path, generation={"n": 0})
        assert "generation.n: " in told and told.endswith("got 0")

    def test_an_unknown_kind_lists_those_there_are(self, tmp_path: Path) -> None:
        assert "captioner.kind: must be one of blip2" in self.refuse(
            tmp_path, captioner={"kind": "blip"}
        )

    def test_a_missing_config(self, tmp_path: Path) -> None:
        result = command("run", tmp_path / "no.yaml")
        assert result.exit_code == 2 and "no such config file" in one_line(result)

    def test_a_missing_dataset(self, tmp_path: Path) -> None:
        assert "gone.parquet" in self.refuse(tmp_path, dataset={"path": "gone.parquet"})

    def test_an_unknown_column(self, tmp_path: Path) -> None:
        told = self.refuse(
            tmp_path, dataset={"path": "rows.parquet", "columns": {"image": "picture"}}
        )
        assert "picture" in told and "ground (string)" in told

    def test_an_image_column_that_is_none(self, tmp_path: Path) -> None:
        write_world(tmp_path, scene_rows(8, 0, 0))
        told = self.refuse(
            tmp_path, dataset={"path": "rows.parquet", "columns": {"image": "ground"}}
        )
        assert "'ground'" in told and "image" in told

    def test_duplicate_ids(self, tmp_path: Path) -> None:
        write_world(tmp_path, scene_rows(2, 1, 0))
        write_rows(tmp_path / "rows.parquet", scene_rows(2, 0, 0) * 2)
        assert "stands twice" in self.refuse(tmp_path)
