"""A column of the names of pictures without their suffix is told by init, and read where it is set."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.dataset.catalog import Catalog
from pipeline.dataset.overlooked import overlooked
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, read, write_parquet

TEXTS = [f"a hat {n}" for n in range(4)]


def put(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PNG)


def told(folder: Path, place: Path) -> list[str]:
    lines = overlooked(Catalog.scan(open_dataset(folder), place))
    return [line for line in lines if "has the names of pictures" in line]


@pytest.mark.parametrize("column", ["id", "code"])
def test_stems_of_pictures_are_told_and_read_where_the_column_is_set(
    tmp_path: Path, column: str
) -> None:
    data = tmp_path / "data"
    put(data, [f"images/00{n}.jpg" for n in range(3)])
    lines = [f"00{n},{text}" for n, text in enumerate(TEXTS)]
    (data / "rows.csv").write_text("\n".join([f"{column},caption", *lines, ""]))
    (line,) = told(data, tmp_path / "found")
    assert line == (
        f"'{column}' has the names of pictures without their suffix (3 of the first 4 rows): set"
        f" columns.image to '{column}', if they are the rows'"
    )
    rows = read(open_dataset(data, columns={"id": column, "image": column}))
    assert [bool(row["image"]["bytes"]) for row in rows] == [True] * 3 + [False]
    assert [row["id"] for row in rows] == ["000", "001", "002", "003"]
    words = ["init", str(data), "-o", str(tmp_path / "c.yaml")]
    assert line in CliRunner().invoke(app, words).stderr


def test_numbers_that_are_names_of_pictures_are_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    put(data, [f"{n:012d}.jpg" for n in (139, 285, 632)])
    write_parquet(data / "a.parquet", image_id=pa.array([139, 285, 632, 7]), caption=TEXTS)
    (line,) = told(data, tmp_path / "found")
    assert line.startswith("'image_id' has the names of pictures without their suffix (3 of")
    assert "as numbers: write the names as a column of images" in line


def test_stems_of_pictures_in_a_zip_are_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with zipfile.ZipFile(data / "images.zip", "w") as packed:
        for number in range(4):
            packed.writestr(f"p{number}.png", PNG)
    write_parquet(data / "a.parquet", key=[f"p{n}" for n in range(4)], text=TEXTS)
    (line,) = told(data, tmp_path / "found")
    assert line.endswith("set columns.image to 'key', if they are the rows'")


@pytest.mark.parametrize("rows", ["others", "found"])
def test_nothing_is_told_where_names_differ_or_rows_have_pictures(
    tmp_path: Path, rows: str
) -> None:
    data = tmp_path / "data"
    put(data, [f"{n}.jpg" for n in range(4)])
    ids = [f"{n}" for n in range(4)] if rows == "found" else ["a", "b", "c", "0"]
    columns = {"image": ["0.jpg"] * 4} if rows == "found" else {}
    write_parquet(data / "a.parquet", id=ids, text=TEXTS, **columns)
    assert told(data, tmp_path / "found") == []
