"""Splits that are read as one dataset are told by init and by inspect."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.advice.splits import split_of
from tests import quick_worlds


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("data/VAL_2017.csv", "validation"),
        ("test/metadata.jsonl", "test"),
        ("train2017/dev.tar", "validation"),
        ("contest/latest.parquet", None),
        ("trainers.csv", None),
    ],
)
def test_a_split_is_a_word_of_its_own_in_a_name(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize("layout", ["{}.parquet", "{}/a.parquet"])
def test_init_and_inspect_name_splits_that_are_mixed(tmp_path: Path, layout: str) -> None:
    for number, name in enumerate(("train", "test", "notes")):
        rows = [quick_worlds.row(60 * number + n, None if n % 4 else "text") for n in range(52)]
        quick_worlds.write(tmp_path / "data" / layout.format(name), rows)
    config = quick_worlds.config(tmp_path)
    for words in (
        ["init", str(tmp_path / "data"), "-o", str(tmp_path / "a.yaml")],
        ["inspect", config],
    ):
        told = " ".join(CliRunner().invoke(app, list(map(str, words))).output.split())
        assert (
            "files of several splits are one dataset (rows: train 52, test 52, no split 52)" in told
        )


def test_one_split_is_nothing_to_tell(tmp_path: Path) -> None:
    quick_worlds.write(tmp_path / "data" / "train.parquet", quick_worlds.rows(40, 12, 0))
    told = CliRunner().invoke(app, ["inspect", str(quick_worlds.config(tmp_path))]).output
    assert "splits" not in told
