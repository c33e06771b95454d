"""What lies beside the rows and may belong to them is named, and nothing that a row has."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.overlooked import overlooked
from tests.pipeline.dataset.forms.small_files import PNG
from tests.pipeline.dataset.forms.test_tars import write_tar
from tests.pipeline.dataset.test_overlooked import catalog_of, put


@pytest.mark.parametrize("table", ["rows.jsonl", "metadata.jsonl", "0.txt"])
def test_an_empty_picture_that_a_row_names_is_named_as_that_alone(
    tmp_path: Path, table: str
) -> None:
    put(tmp_path, ["0.png"], PNG)
    put(tmp_path, ["1.png"], b"")
    rows = [{"file_name": f"{n}.png", "text": "a hat"} for n in range(2)]
    held = "a hat" if table == "0.txt" else "".join(json.dumps(row) + "\n" for row in rows)
    put(tmp_path, [table], held.encode())
    catalog = catalog_of(tmp_path)
    assert catalog.reasons()["image"] == {"empty file '1.png'": 1}
    assert overlooked(catalog) == []


@pytest.mark.parametrize("texts", [[12, 1955], [1.5, 2.5], [True, False]])
def test_texts_that_are_no_strings_are_named(tmp_path: Path, texts: list[object]) -> None:
    (tmp_path / "data").mkdir()
    columns = {"image": [PNG] * 2, "nr": [1, 2], "text": texts}
    pq.write_table(pa.table(columns), tmp_path / "data" / "a.parquet")
    (line,) = overlooked(catalog_of(tmp_path))
    assert line.startswith("every row counts as without text, which may lie in 'text' (")


def test_texts_of_other_suffixes_beside_pictures_are_named(tmp_path: Path) -> None:
    put(tmp_path, [*(f"{n}.png" for n in range(4)), "README.png"], PNG)
    put(tmp_path, ["0.md", "1.png.md", "2.html", "README.md", "notes.md", "3.py"], b"a hat")
    assert overlooked(catalog_of(tmp_path)) == [
        "2 .md files (0.md, 1.png.md) are not used; texts beside pictures are read of .txt files",
        "1 .html file (2.html) is not used; texts beside pictures are read of .txt files",
    ]


def test_halves_of_samples_in_different_folders_of_a_tar_are_named(tmp_path: Path) -> None:
    members = {"imgs/a.png": PNG, "txt/a.txt": b"x", "imgs/b.png": PNG, "txt/c.txt": b"y"}
    (tmp_path / "data").mkdir()
    write_tar(tmp_path / "data" / "0.tar", list(members.items()))
    (line,) = overlooked(catalog_of(tmp_path))
    assert "one with a text alone: 1 (imgs/a, txt/a); they are rows of their own" in line
