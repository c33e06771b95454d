"""What an export keeps, and that it is swapped in whole."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.config.config import load_config
from pipeline.export.card import card
from pipeline.export.export import export
from pipeline.export.settings import ExportSettings
from pipeline.job import Job
from pipeline.report.presentation import export_run
from pipeline.storage.errors import ConfigError
from tests.pipeline.export.completed_rows import (
    COUNT,
    USABLE,
    assert_same_picture,
)
from tests.quick_worlds import FinishedRun


class TestFilters:
    @pytest.mark.parametrize(
        ("only", "kinds"), [("completed", (2, 3)), ("observed", (0, 1)), ("all", (0, 1, 2, 3))]
    )
    def test_only(
        self, completed: ds.Dataset, tmp_path: Path, only: str, kinds: tuple[int, ...]
    ) -> None:
        made = export(completed, tmp_path / "out", ExportSettings(only=only))
        labels = pq.read_table(tmp_path / "out" / "data")["label"].to_pylist()
        assert labels == [n for n in range(COUNT) if n % 6 in kinds]
        assert made.rows + sum(made.left_out.values()) == COUNT

    def test_min_score_leaves_observed_rows(self, completed: ds.Dataset, tmp_path: Path) -> None:
        made = export(
            completed, tmp_path / "out", ExportSettings(min_score={"text": 0.1, "image": 0.1})
        )
        labels = pq.read_table(tmp_path / "out" / "data")["label"].to_pylist()
        assert labels == [n for n in USABLE if n % 6 < 2 or n >= 100]
        low = sum(n < 100 and n % 6 in (2, 3) for n in range(COUNT))
        lost = {
            n: sum(m % 6 == i for m in range(COUNT)) for n, i in (("rejected", 4), ("failed", 5))
        }
        assert made.left_out == {"below the score": low, **lost}

    def test_the_best_of_one_half_leave_the_other_alone(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        settings = ExportSettings(only="completed", best={"image": 0.25})
        made = export(completed, tmp_path / "out", settings)
        labels = pq.read_table(tmp_path / "out" / "data")["label"].to_pylist()
        images = [n for n in range(COUNT) if n % 6 == 3]
        kept = images[-math.ceil(len(images) / 4) :]
        assert labels == sorted([n for n in range(COUNT) if n % 6 == 2] + kept)
        assert made.left_out["below the score"] == len(images) - len(kept)
        card = (tmp_path / "out" / "README.md").read_text()
        assert "the best 25 % of the completed images by score" in card

    def test_a_least_score_and_a_share_hold_together(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        settings = ExportSettings(
            only="completed",
            best={"image": 0.5, "text": 0},
            min_score={"image": (COUNT - 10) / 1000},
        )
        export(completed, tmp_path / "out", settings)
        labels = pq.read_table(tmp_path / "out" / "data")["label"].to_pylist()
        assert labels == [n for n in range(COUNT - 10, COUNT) if n % 6 == 3]

    @pytest.mark.parametrize("best", [{"image": 1.5}, {"picture": 0.5}, {"text": -0.1}])
    def test_a_share_is_of_a_half_and_at_most_one(self, best: dict) -> None:
        with pytest.raises(ValidationError):
            ExportSettings(best=best)

    def test_columns(self, completed: ds.Dataset, tmp_path: Path) -> None:
        from datasets import load_dataset

        export(completed, tmp_path / "out", ExportSettings(columns=["status", "label"]))
        rows = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
        assert rows.column_names == ["id", "image", "text", "label", "status"]
        assert_same_picture(rows[0]["image"], USABLE[0])
        settings = ExportSettings(format="imagefolder", columns=["label"])
        export(completed, tmp_path / "folder", settings)
        names = pq.read_schema(tmp_path / "folder" / "metadata.parquet").names
        assert names == ["file_name", "id", "text", "label"]

    def test_an_unknown_column_is_named_with_those_there_are(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match="no column 'labels'; there are id, .*label"):
            export(completed, tmp_path / "out", ExportSettings(columns=["labels"]))

    def test_nothing_left_is_an_error_and_leaves_the_old_export(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        export(completed, tmp_path / "out", ExportSettings(only="observed"))
        before = _listing(tmp_path)
        nothing = {"text": 9.0, "image": 9.0}
        with pytest.raises(ConfigError, match="no row is left .*below the score"):
            export(completed, tmp_path / "out", ExportSettings(only="completed", min_score=nothing))
        assert _listing(tmp_path) == before


class TestSwap:
    def test_a_new_export_replaces_the_old_one_whole(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        export(completed, tmp_path / "out", ExportSettings(format="imagefolder"))
        export(completed, tmp_path / "out", ExportSettings(format="llava"))
        assert not (tmp_path / "out" / "metadata.parquet").exists()
        assert (tmp_path / "out" / "llava.json").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_an_export_that_breaks_off_leaves_the_old_one(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        export(completed, tmp_path / "out", ExportSettings())
        before = _listing(tmp_path)

        def stop(rows: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export(completed, tmp_path / "out", ExportSettings(format="llava"), advance=stop)
        assert _listing(tmp_path) == before

    def test_two_runs_may_write_to_one_folder_and_the_last_stands_whole(
        self, finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = Job(load_config(shutil.copytree(finished.folder, tmp_path / "b") / "dmc.yaml"))
        waiting = [ExportSettings(only="observed")]

        def card_beside_another(*arguments: Any) -> str:
            if waiting:
                export_run(other, waiting.pop(), tmp_path / "out")
            return card(*arguments)

        monkeypatch.setattr("pipeline.export.export.card", card_beside_another)
        done = export_run(finished.job(), ExportSettings(only="completed"), tmp_path / "out")
        exported = pq.read_table(tmp_path / "out" / "data")
        assert set(exported["status"].to_pylist()) == {"completed"}
        assert len(exported) == done.rows == 19
        assert [path.name for path in tmp_path.glob("out*")] == ["out"]

    def test_a_folder_of_something_else_is_left_alone(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("years of work")
        with pytest.raises(ConfigError, match="not an export"):
            export(completed, tmp_path / "out", ExportSettings())
        assert (tmp_path / "out" / "thesis.tex").exists()


def _listing(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
