"""What may be meant otherwise than it is read is told by init and inspect, and nothing else is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.dataset.misread import misread
from tests import quick_worlds
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, write_parquet


@pytest.mark.parametrize(
    "texts",
    [
        ['["a hat", "a cap"]', None, "[]"],
        ["['a hat', \"a cap\"]"],
        ['{"en": "a hat"}'],
    ],
)
def test_lists_that_are_written_out_as_texts(tmp_path: Path, texts: list[str | None]) -> None:
    write_parquet(tmp_path / "a.parquet", image=[PNG] * len(texts), raw=texts)
    (line,) = misread(open_dataset(tmp_path))
    assert line.startswith("the texts in 'raw' are lists or objects that are written out (")


@pytest.mark.parametrize(
    "texts",
    [["[a hat]", "[a cap]"], ['["a hat"]', "a cap"], [None, None], [["a hat"], []], ["{a} hat"]],
)
def test_texts_in_brackets_are_texts(tmp_path: Path, texts: list[Any]) -> None:
    write_parquet(tmp_path / "a.parquet", image=[PNG] * len(texts), text=texts)
    assert misread(open_dataset(tmp_path)) == []


def test_long_texts_are_gone_through_but_once(tmp_path: Path) -> None:
    blanks = " " * 20_000
    texts = [f"[{blanks}x", f"{blanks}[{blanks}", f"{{'{':' * 20_000}", f"['{blanks}"] * 16
    write_parquet(tmp_path / "a.parquet", image=[PNG] * len(texts), text=texts)
    dataset = open_dataset(tmp_path)
    before = time.process_time()
    assert misread(dataset) == []
    assert time.process_time() - before < 2


def test_columns_that_stand_in_the_names_of_folders(tmp_path: Path) -> None:
    for folder in ("lang=en/year=1999", "lang=de/year=2000"):
        (tmp_path / folder).mkdir(parents=True)
        columns = {"image": [PNG], "text": ["a hat"], "year": [1999]}
        write_parquet(tmp_path / folder / "part-0.parquet", **columns)
    (line,) = misread(open_dataset(tmp_path))
    assert line.startswith("the folders lang=… tell values of a column 'lang', which is not read")


def test_the_commands_that_look_at_data_say_so(tmp_path: Path) -> None:
    rows = [r | {"text": json.dumps([r["text"]])} for r in quick_worlds.rows(6, 0, 0)]
    (tmp_path / "data" / "split=a").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "split=a" / "a.parquet")
    config = quick_worlds.config(tmp_path)
    for words in (
        ["init", str(tmp_path / "data"), "-o", str(tmp_path / "new.yaml")],
        ["inspect", str(config)],
    ):
        answer = CliRunner().invoke(app, words)
        assert answer.exit_code == 0, answer.output
        said = " ".join(answer.output.split())
        assert "lists or objects that are written out" in said
        assert "the folders split=…" in said


@pytest.mark.parametrize("text", ["nan", "None", "null", "<NA>"])
def test_texts_that_programs_write_for_none_are_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.csv").write_text(f"id,image,text\n1,1.png,{text}\n2,1.png,a hat\n")
    (tmp_path / "1.png").write_bytes(PNG)
    (line,) = misread(open_dataset(tmp_path))
    assert line.startswith(f"the texts of 1 of the first rows in 'text' are '{text}', which counts")


@pytest.mark.parametrize(
    ("header", "is_told"),
    [
        ("17\tA caption of a hat", True),
        ("a\tTwo men stand beside a caption", True),
        ("0\tcaption", False),
        ("id\tCaption of the image", False),
    ],
)
def test_a_first_line_that_looks_like_a_row_is_told(
    tmp_path: Path, header: str, is_told: bool
) -> None:
    (tmp_path / "rows.tsv").write_text(f"{header}\n18\tA cap\n")
    lines = misread(open_dataset(tmp_path))
    told = [line for line in lines if line.startswith("the first line of rows.tsv counts as")]
    assert bool(told) == is_told


@pytest.mark.parametrize("log", ["_delta_log", ".hoodie", "other"])
def test_a_table_whose_log_says_which_files_count_is_told(tmp_path: Path, log: str) -> None:
    write_parquet(tmp_path / "a.parquet", image=[PNG], text=["a hat"])
    (tmp_path / log).mkdir()
    lines = misread(open_dataset(tmp_path))
    assert [f"({log}), and all Parquet files in it are read" in line for line in lines] == [
        True
    ] * (log != "other")
