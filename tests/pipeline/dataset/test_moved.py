"""Images that rows name by paths of another machine are told with what lets them be found, and found by it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.dataset.catalog import Catalog
from pipeline.dataset.moved import moved
from tests import quick_worlds
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, read, write_jsonl

FORMS = ["rows.jsonl", "rows.csv", "rows.parquet", "metadata.jsonl", "captions.json"]


def write(folder: Path, form: str, paths: list[str]) -> Path:
    """A dataset of a row a path, in a folder that holds `imgs/0.png` and `imgs/1.png`."""
    (folder / "imgs").mkdir(parents=True)
    for number in range(2):
        (folder / "imgs" / f"{number}.png").write_bytes(PNG)
    naming = "file_name" if form == "metadata.jsonl" else "image"
    rows = [{"id": str(n), naming: path, "text": f"hat {n}"} for n, path in enumerate(paths)]
    if form.endswith(".jsonl"):
        write_jsonl(folder / form, rows)
    elif form.endswith(".csv"):
        lines = [",".join(row.values()) for row in rows]
        (folder / form).write_text("\n".join(["id,image,text", *lines, ""]))
    elif form.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), folder / form)
    else:
        images = [{"id": n, "file_name": path} for n, path in enumerate(paths)]
        told = [{"id": n, "image_id": n, "caption": f"hat {n}"} for n in range(len(paths))]
        (folder / form).write_text(json.dumps({"images": images, "annotations": told}))
    return folder


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("start", "prefix"),
    [
        ("/home/ann/data/imgs/", "/home/ann/data"),
        ("C:\\data\\imgs\\", "C:\\data"),
        ("train/", "train"),
        ("https://host/pictures/", "https://host/pictures"),
    ],
)
def test_what_paths_begin_with_is_told_and_left_off(
    tmp_path: Path, form: str, start: str, prefix: str
) -> None:
    folder = write(tmp_path / "data", form, [f"{start}{n}.png" for n in range(2)])
    dataset = open_dataset(folder)
    (line,) = moved(Catalog.scan(dataset, tmp_path / "found"))
    assert line.endswith(f": 2; set image_prefix to {prefix!r}, if they are the same")
    for given in (prefix, f"{prefix}/"):
        rows = [r for r in read(open_dataset(folder, image_prefix=given)) if r["text"]]
        held = [(r["image"]["bytes"], r["image"]["path"], r["text"]) for r in rows]
        assert held == [(PNG, f"{start}{n}.png", [f"hat {n}"]) for n in range(2)]
        found = Catalog.scan(open_dataset(folder, image_prefix=given), tmp_path / "again")
        assert found.counts() == {"complete": 2, "text": 0, "image": 0, "both": 0}
        assert moved(found) == []


def test_a_picture_that_metadata_names_without_its_folder_is_no_row_of_its_own(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path, "metadata.jsonl", ["0.png", "1.png"])
    rows = read(open_dataset(folder))
    assert [(r["image"]["bytes"], r["text"]) for r in rows] == [(PNG, ["hat 0"]), (PNG, ["hat 1"])]


@pytest.mark.parametrize("form", ["rows.jsonl", "metadata.jsonl"])
def test_the_picture_of_another_row_is_not_meant(tmp_path: Path, form: str) -> None:
    paths = ["imgs/0.png", "imgs/1.png", "/home/ann/other/0.png"]
    folder = write(tmp_path / "data", form, paths)
    assert moved(Catalog.scan(open_dataset(folder), tmp_path / "found")) == []


def test_what_is_left_of_a_path_leads_out_no_more_than_before(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    paths = [f"/home/ann/../{tmp_path.name}/secret.png", "/home/ann/../secret.png"]
    paths += [f"/home/ann/{tmp_path}/secret.png"]
    rows = read(
        open_dataset(write(tmp_path / "data", "rows.jsonl", paths), image_prefix="/home/ann")
    )
    assert [row["image"]["bytes"] for row in rows] == [None, None, None]


def test_the_commands_that_look_at_data_say_so(tmp_path: Path) -> None:
    rows = quick_worlds.rows(6, 0, 0)
    (tmp_path / "data").mkdir()
    for number, row in enumerate(rows):
        (tmp_path / "data" / f"{number}.png").write_bytes(row["image"]["bytes"])
        row["image"] = f"/home/ann/{number}.png"
    write_jsonl(tmp_path / "data" / "rows.jsonl", rows)
    config = quick_worlds.config(tmp_path)
    for words in (
        ["init", str(tmp_path / "data"), "-o", str(tmp_path / "new.yaml")],
        ["inspect", str(config)],
    ):
        answer = CliRunner().invoke(app, words)
        assert "set image_prefix to '/home/ann'" in " ".join(answer.output.split()), answer.output
