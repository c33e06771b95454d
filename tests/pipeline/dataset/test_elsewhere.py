"""A half that lies in another column, where its own has none, is told before it is generated anew."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from pipeline.config.config import load_config
from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import Dataset, DatasetSettings
from pipeline.dataset.overlooked import overlooked, warn_of_run
from pipeline.job import Job
from tests import quick_worlds
from tests.pipeline.dataset.forms.small_files import PNG


def told(folder: Path, **settings: Any) -> list[str]:
    dataset = Dataset.open(DatasetSettings(path=str(folder / "data"), **settings), folder)
    catalog = Catalog.scan(dataset, folder / "catalog")
    return overlooked(catalog, in_use=True)


def write(folder: Path, **columns: Any) -> None:
    (folder / "data").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "data" / "a.parquet")


@pytest.mark.parametrize(
    "second",
    [
        pa.array(["x", "a cat", " ", "a dog"]),
        pa.array([["x"], ["a", None], [], ["b"]]),
        pa.array([b"x", b"a cat", None, b"a dog"]),
        pa.array([{"raw": "x"}, {"raw": "y"}, None, {"raw": "z"}]),
    ],
)
@pytest.mark.parametrize("name", ["caption", "captions_2", "blip_caption", "text_en", "shortText"])
def test_texts_in_a_second_column_are_counted_at_the_rows_without_one(
    tmp_path: Path, second: pa.Array, name: str
) -> None:
    write(tmp_path, image=[PNG] * 4, text=["x", None, "", " "], **{name: second})
    (line,) = told(tmp_path)
    assert line.startswith(f"rows without text in 'text' that have one in '{name}': 2; ")
    assert told(tmp_path, columns={"extra": []}) == []


def test_pictures_in_a_second_column_are_counted_where_they_are_there(tmp_path: Path) -> None:
    write(tmp_path, image=[PNG, None, None, None, None], text=list("abcde"))
    (tmp_path / "data" / "1.png").write_bytes(PNG)
    paths = ["1.png", "1.png", "gone.png", "https://example.com/a.png", None]
    coded = base64.b64encode(PNG * 3).decode()
    table = pq.read_table(tmp_path / "data" / "a.parquet")
    table = table.append_column("image_path", pa.array(paths))
    table = table.append_column("img", pa.array([None, None, b"", PNG, PNG]))
    table = table.append_column("photo", pa.array([None, coded, None, None, None]))
    table = table.append_column("image_caption", pa.array(["1.png"] * 5))
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    lines = told(tmp_path)
    assert sorted(line.split(";")[0] for line in lines) == [
        "1 .png file (1.png) is not used: no row names it",
        "rows without image in 'image' that have one in 'image_path': 1",
        "rows without image in 'image' that have one in 'img': 2",
        "rows without image in 'image' that have one in 'photo': 1",
    ]


def test_pictures_in_columns_of_any_name_are_counted_by_their_values(tmp_path: Path) -> None:
    write(
        tmp_path,
        image=[PNG, None, None, None],
        text=list("abcd"),
        thumb=["1.png", "1.png", "a word", "gone.png"],
        raster=[None, PNG, b"no picture", None],
        mask=["1.png"] * 4,
        tags=["1 png", "b", "c", "d"],
        rows=[[["1.png"]]] * 4,
        nr=[1, 2, 3, 4],
    )
    (tmp_path / "data" / "1.png").write_bytes(PNG)
    lines = [line.split(";")[0] for line in told(tmp_path) if line.startswith("rows ")]
    assert sorted(lines) == [
        "rows without image in 'image' that have one in 'raster': 1",
        "rows without image in 'image' that have one in 'thumb': 1",
    ]


@pytest.mark.parametrize("name", ["alt", "content", "short_desc", "Transcript"])
def test_texts_beside_are_counted_under_names_that_no_text_column_is_found_by(
    tmp_path: Path, name: str
) -> None:
    write(tmp_path, image=[PNG] * 2, text=["x", None], **{name: ["a cat", "a dog"]})
    (line,) = told(tmp_path)
    assert line.startswith(f"rows without text in 'text' that have one in '{name}': 1; ")


def test_columns_of_json_that_come_late_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows: list[dict[str, Any]] = [{"image": "1.png", "text": "a"}] * 10_100
    rows += [{"image": "1.png", "caption": "b"}, {"image": "1.png", "caption": ["c", 1]}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "data" / "a.jsonl").write_text(lines)
    (line,) = told(tmp_path)
    assert line.startswith("rows without text in 'text' that have one in 'caption': 2; ")


def test_rows_that_are_left_out_are_not_counted(tmp_path: Path) -> None:
    write(tmp_path, id=["a", "b"], image=[PNG] * 2, text=[None] * 2, caption=["x", "y"])
    (tmp_path / "out.txt").write_text("a\n")
    (line,) = told(tmp_path, exclude="out.txt")
    assert line.startswith("rows without text in 'text' that have one in 'caption': 1; ")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    rows = quick_worlds.rows(34, 3, 2)
    data = [row | {"caption": "a cat that was there"} for row in rows]
    quick_worlds.write(tmp_path / "data" / "a.parquet", data, ("note", "caption"))
    return quick_worlds.config(tmp_path)


def test_init_inspect_and_a_run_that_would_generate_them_say_so(
    world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = "rows without text in 'text' that have one in 'caption': 3"
    for words in (
        ["init", str(world.parent / "data"), "-o", str(world.parent / "c.yaml")],
        ["inspect", str(world)],
    ):
        answer = CliRunner().invoke(app, words)
        assert answer.exit_code == 0, answer.output
        assert f"rag4dmc: {said}" in answer.stderr
    caplog.set_level(logging.WARNING)
    _, summary = quick_worlds.run(world)
    assert any(said in record.message for record in caplog.records)
    assert any(said in line for line in summary["warnings"])


def test_a_run_of_the_config_of_init_tells_of_a_column_that_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = quick_worlds.rows(34, 3, 2)
    quick_worlds.write(tmp_path / "data" / "a.parquet", rows)
    table = pq.read_table(tmp_path / "data" / "a.parquet")
    captions = table["text"].combine_chunks().cast(pa.binary())
    pq.write_table(
        table.drop_columns(["text", "note"]).append_column("caption", captions),
        tmp_path / "data" / "a.parquet",
    )
    config = tmp_path / "c.yaml"
    said = "every row counts as without text, which may lie in 'caption' (binary)"
    answer = CliRunner().invoke(app, ["init", str(tmp_path / "data"), "-o", str(config)])
    assert answer.exit_code == 0 and said in answer.stderr, answer.output
    assert "say text: none" in config.read_text()
    values = yaml.safe_load(config.read_text())
    assert values["dataset"]["columns"] == {"id": "id", "image": "image"}
    # Pairs to learn from are another's.
    quick_worlds.write(tmp_path / "pairs" / "a.parquet", quick_worlds.rows(34, 0, 0))
    parts = yaml.safe_load(quick_worlds.config(tmp_path).read_text())
    external = [{"name": "pairs", "path": "pairs"}]
    config.write_text(yaml.safe_dump(parts | {"dataset": values["dataset"], "external": external}))
    caplog.set_level(logging.WARNING)
    job = Job(load_config(config))
    with job.lock():
        job.begin()
        job.plan()
        assert any(said in line for line in warn_of_run(job.catalog, {"text": 37}, ["text"]))
    meant = ["init", str(tmp_path / "data"), "-o", str(config), "--force", "--text", "none"]
    assert CliRunner().invoke(app, meant).exit_code == 0
    dataset = load_config(config).dataset
    assert dataset.columns.text == "none"


def test_dialogues_of_several_answers_are_told_where_a_row_has_no_text(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.png").write_bytes(PNG)
    turn = {"from": "gpt", "value": "a cat"}
    rows = [{"image": "1.png", "conversations": [turn] * n} for n in (1, 2, 3, 0)]
    (tmp_path / "data" / "llava.json").write_text(json.dumps(rows))
    (line,) = told(tmp_path)
    assert line.startswith("rows without text in 'text' that have one in 'conversations': 2; ")


def test_empty_bytes_hide_no_picture_that_their_path_names(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.png").write_bytes(PNG)
    image = [{"bytes": b"", "path": "1.png"}, {"bytes": b"", "path": None}, {"bytes": PNG}]
    write(tmp_path, image=image, text=["a", "b", "c"])
    dataset = Dataset.open(DatasetSettings(path=str(tmp_path / "data")), tmp_path)
    rows = [r for f in dataset.files for b in dataset.batches(f) for r in b.to_pylist()]
    assert [row["image"]["bytes"] for row in rows] == [PNG, None, PNG]
    assert rows[1]["image_reason"] == "empty image"
