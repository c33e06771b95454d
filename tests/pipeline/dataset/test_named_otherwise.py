"""An image that is named in another way than its file is called, or by an object, is the row's."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import DatasetError
from pipeline.dataset.overlooked import overlooked
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, read, write_jsonl

WRITTEN = "data:image/png;base64," + base64.b64encode(PNG).decode()
OTHER = {"bytes": base64.b64encode(PNG * 2).decode(), "path": None}


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("a%20b.png", "a b.png"),
        ("a b.png", "a%20b.png"),
        ("caf%C3%A9.png", "café.png"),
        (" 1.png\n", "1.png"),
        ("1", "1.png"),
        ("2020.01.31", "2020.01.31.jpg"),
    ],
)
@pytest.mark.parametrize("form", ["rows.jsonl", "metadata.jsonl", "zip"])
def test_a_name_that_means_one_file_is_its_name(
    tmp_path: Path, named: str, there: str, form: str
) -> None:
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as packed:
            packed.writestr(there, PNG)
    else:
        (tmp_path / there).write_bytes(PNG)
    name = "rows.jsonl" if form == "zip" else form
    write_jsonl(tmp_path / name, [{"id": "1", "file_name": named, "text": "a hat"}])
    (row,) = read(open_dataset(tmp_path))
    assert (row["image"]["bytes"], row["text"]) == (PNG, ["a hat"])


def test_a_name_that_means_more_than_one_file_means_none(tmp_path: Path) -> None:
    for name in ("1.png", "1.webp"):
        (tmp_path / name).write_bytes(PNG)
    write_jsonl(tmp_path / "rows.jsonl", [{"id": "1", "image": "1", "text": "a hat"}])
    (row,) = read(open_dataset(tmp_path))
    assert row["image_reason"] == "no such file '1'"


def test_labels_that_folders_are_called_by_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(PNG)
    rows = [{"id": str(n), "image": "cat", "text": "a hat"} for n in range(8)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DatasetError, match=r"column 'image' holds texts.*'cat'"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("named", "there"),
    [
        # Another row's, as like as not.
        ("1.jpg", "1.jpeg"),
        # Escapes of Latin-1, and percent signs that are none.
        ("caf%E9.png", "caf%E8.png"),
        ("50%AB.png", "50%AC.png"),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "metadata.jsonl"])
def test_another_file_of_a_like_name_is_not_taken(
    tmp_path: Path, named: str, there: str, name: str
) -> None:
    (tmp_path / there).write_bytes(PNG)
    rows = [{"id": n, "file_name": n, "text": "a hat"} for n in (named, there)]
    write_jsonl(tmp_path / name, rows)
    first, second = read(open_dataset(tmp_path))
    assert first["image_reason"] == f"no such file '{named}'"
    assert second["image"]["bytes"] == PNG


@pytest.mark.parametrize("form", ["rows.jsonl", "metadata.jsonl", "zip"])
def test_what_is_called_so_elsewhere_is_meant_before_what_is_called_otherwise_here(
    tmp_path: Path, form: str
) -> None:
    (tmp_path / "train").mkdir()
    if form == "zip":
        (tmp_path / "a%20b.png").write_bytes(PNG * 2)
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as packed:
            packed.writestr("a b.png", PNG)
        table = tmp_path / "rows.jsonl"
    else:
        (tmp_path / "a b.png").write_bytes(PNG)
        (tmp_path / "train" / "a%20b.png").write_bytes(PNG * 2)
        table = tmp_path / "train" / form
    write_jsonl(table, [{"id": "1", "file_name": "a b.png", "text": "a hat"}])
    (row,) = (row for row in read(open_dataset(tmp_path)) if row["text"])
    assert row["image"]["bytes"] == PNG


def test_a_difference_in_case_is_less_than_one_in_percent_signs(tmp_path: Path) -> None:
    (tmp_path / "A b.png").write_bytes(PNG)
    (tmp_path / "a%20b.png").write_bytes(PNG * 2)
    write_jsonl(tmp_path / "rows.jsonl", [{"id": "1", "image": "a b.png", "text": "a hat"}])
    (row,) = read(open_dataset(tmp_path))
    assert row["image"]["bytes"] == PNG


def test_a_folder_does_not_stand_for_an_image_that_is_called_like_it(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat.png").write_bytes(PNG)
    write_jsonl(tmp_path / "rows.jsonl", [{"id": "1", "image": "cat", "text": "a hat"}])
    (row,) = read(open_dataset(tmp_path))
    assert row["image"]["bytes"] == PNG


def test_names_without_a_suffix_are_no_texts(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(PNG)
    rows = [{"id": str(n), "image": str(n), "text": "a hat"} for n in range(8)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert {row["image"]["bytes"] for row in read(open_dataset(tmp_path))} == {PNG}


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"file_name": "1.png"}, None),
        ({"filename": "1.png", "width": 3}, {"filename": "1.png", "width": 3}),
        (
            {"url": "https://example.org/1.png", "src": "1.png"},
            {"url": "https://example.org/1.png", "src": "1.png"},
        ),
        ({"bytes": base64.b64encode(PNG * 2).decode(), "path": None}, None),
        ([{"file_name": "1.png"}], [{"file_name": "1.png"}]),
        ({"src": WRITTEN, "alt": "z"}, {"alt": "z"}),
        ({"path": None, "bytes": WRITTEN, "thumb": WRITTEN}, None),
        ([{"bytes": WRITTEN, "path": None}], None),
        # Another image of the row is nowhere else.
        ([{"bytes": WRITTEN, "alt": "z"}, OTHER, "2.png"], [{"alt": "z"}, OTHER, "2.png"]),
    ],
)
def test_an_object_that_names_an_image_is_read_and_the_rest_of_it_kept(
    tmp_path: Path, told: Any, kept: Any
) -> None:
    (tmp_path / "1.png").write_bytes(PNG)
    write_jsonl(tmp_path / "rows.jsonl", [{"id": "1", "image": told, "text": "a hat"}])
    (row,) = read(open_dataset(tmp_path))
    assert row["image"]["bytes"].startswith(PNG)
    assert json.loads(row["extra"]["source_image"] or "null") == kept


@pytest.mark.parametrize("form", ["rows.jsonl", "sidecars"])
def test_links_that_lead_out_of_the_folder_are_told_as_such(tmp_path: Path, form: str) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    for folder in (data, store):
        folder.mkdir()
    (store / "1.png").write_bytes(PNG)
    (data / "1.png").symlink_to(store / "1.png")
    if form == "sidecars":
        (data / "1.txt").write_text("a hat")
    else:
        write_jsonl(data / form, [{"id": "1", "image": "1.png", "text": "a hat"}])
    catalog = Catalog.scan(open_dataset(data), tmp_path / "found")
    (line,) = (line for line in overlooked(catalog) if "1.png" in line)
    assert line.startswith("links that lead out of the dataset's folder are not followed: 1 .png")


@pytest.mark.parametrize("told", [[{"w": 1, "h": 2}], {"w": 1, "h": 2}])
def test_a_column_of_paths_comes_before_one_of_objects(tmp_path: Path, told: Any) -> None:
    (tmp_path / "1.png").write_bytes(PNG)
    row = {"id": "1", "file_name": "1.png", "text": "a hat", "images": told}
    write_jsonl(tmp_path / "rows.jsonl", [row])
    (read_row,) = read(open_dataset(tmp_path))
    assert read_row["image"]["bytes"] == PNG
    assert json.loads(read_row["extra"]["images"]) == told
