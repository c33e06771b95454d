"""Commands on what a run has made, beside a run that is at it and on an output that is a URL."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from pipeline.config.config import load_config
from pipeline.job import Job
from tests import quick_worlds


def command(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def world(folder: Path, **changes: object) -> Path:
    quick_worlds.write(folder / "data" / "a.parquet", quick_worlds.rows(20, 4, 4))
    return quick_worlds.config(folder, **changes)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config whose run is done."""
    path = world(tmp_path_factory.mktemp("result"))
    quick_worlds.run(path)
    return path


def written(config: Path) -> dict[Path, int]:
    """All files beside the config with their times, but for the lock."""
    files = {path: path.stat().st_mtime_ns for path in config.parent.rglob("*") if path.is_file()}
    return {path: time for path, time in files.items() if path.name != "lock"}


class TestBesideARun:
    @pytest.mark.parametrize(
        "words",
        [
            ["export"],
            ["export", "--output", "elsewhere"],
            ["report"],
            ["review", "marks.json"],
        ],
        ids=" ".join,
    )
    def test_what_writes_is_refused_in_a_line_and_writes_nothing(
        self, config: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(config.parent)
        before = written(config)
        with Job(load_config(config)).lock():
            result = command(words[0], config, *words[1:])
        assert result.exit_code == 3
        assert result.stderr.count("\n") == 1
        assert "another run holds the lock" in result.stderr
        assert written(config) == before

    @pytest.mark.parametrize("words", [["search", "--text", "a red square"], ["inspect"]])
    def test_what_reads_answers(self, config: Path, words: list[str]) -> None:
        with Job(load_config(config)).lock():
            result = command(words[0], config, *words[1:], "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)

    def test_a_search_shows_no_more_than_there_is(self, config: Path) -> None:
        result = command("search", config, "--text", "red", "-n", str(10**20), "--json")
        assert result.exit_code == 0, result.output
        assert 0 < len(json.loads(result.stdout)) < 1000

    def test_a_search_by_what_never_ends_is_refused(self, config: Path, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        result = command("search", config, "--image", str(pipe))
        assert result.exit_code == 2 and result.stderr.strip().endswith("not a file")

    def test_a_look_at_new_data_does_not_disturb_the_run_that_reads_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = world(tmp_path)
        looks = [["inspect", config, "--json"]]
        write = pq.write_table

        def write_beside_a_look(*arguments: Any, **options: Any) -> None:
            write(*arguments, **options)
            if looks:
                assert command(*looks.pop()).exit_code == 0

        monkeypatch.setattr("pipeline.dataset.findings.pq.write_table", write_beside_a_look)
        _, summary = quick_worlds.run(config)
        assert not looks
        assert summary["outcomes"]["completed"] == 8

    def test_afterwards_what_writes_goes_on(self, config: Path, tmp_path: Path) -> None:
        with Job(load_config(config)).lock():
            pass
        assert command("report", config).exit_code == 0
        assert command("export", config).exit_code == 0
        assert command("export", config, "--output", tmp_path / "elsewhere").exit_code == 0
        assert (tmp_path / "elsewhere" / "data").is_dir()


class TestDamage:
    @pytest.mark.parametrize("words", [["search", "--text", "a red square"], ["report"]])
    def test_a_damaged_knowledge_base_is_told_in_a_line(
        self, tmp_path: Path, words: list[str]
    ) -> None:
        config = world(tmp_path)
        quick_worlds.run(config)
        kb = tmp_path / "runs" / "quick" / "kb"
        (kb / "pairs.arrow").write_bytes(b"")
        before = written(config)
        result = command(words[0], config, *words[1:])
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert "the knowledge base is damaged" in result.stderr
        assert "first: rag4dmc build CONFIG" in result.stderr
        assert written(config) == before


class TestOnAUrl:
    @pytest.fixture
    def remote(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The folder that the URL is of, once the run is done; then the machine is another."""
        url = f"file://{tmp_path}/remote"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
        quick_worlds.run(world(tmp_path, output=url))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
        return tmp_path / "remote"

    def test_a_report_goes_to_the_url(self, remote: Path) -> None:
        config = remote.with_name("dmc.yaml")
        page = remote / "report" / "index.html"
        before = page.read_text(encoding="utf-8")
        result = command("report", config, "--cards", 1)
        assert result.stdout.strip() == f"file://{page}"
        after = page.read_text(encoding="utf-8")
        assert len(after) < len(before)
        job = Job(load_config(config))
        job.home.refresh(job.run_id)
        (local,) = remote.parent.glob("second/**/report/index.html")
        assert local.read_text(encoding="utf-8") == after

    def test_what_a_run_would_do_is_told_from_what_stands_there(self, remote: Path) -> None:
        result = command("inspect", remote.with_name("dmc.yaml"), "--json")
        told = json.loads(result.stdout)
        assert (told["done"], told["shards"]) == (28, 0)
        assert told["output"] == f"file://{remote}"
