"""Datasets as people have them on disk: what is read of each, rows with their pictures and captions."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.dataset.dataset import DatasetError
from tests.pipeline.dataset.forms.layouts import (
    LAYOUTS,
    NAMES,
    a_list_of_pictures,
    picture,
    pictures,
    texts_beside,
    uuids_as_ids,
    write,
)
from tests.pipeline.dataset.forms.small_files import open_dataset, read

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_picture_has_its_caption(tmp_path: Path, layout: Callable) -> None:
    dataset = open_dataset(layout(tmp_path) or tmp_path)
    rows = read(dataset)
    assert [row["image_reason"] for row in rows] == [None] * 6
    captions = {row["image"]["bytes"]: row["text"] for row in rows}
    assert captions == {picture(number): [f"caption {number}"] for number in range(6)}
    for file in dataset.files:
        count = sum(batch.num_rows for batch in dataset.batches(file))
        assert dataset.fetch(file, range(count)).num_rows == count


@pytest.mark.parametrize("other", [None, 5, "x"])
def test_metadata_that_is_blank_gives_way_to_the_text_beside_the_picture(
    tmp_path: Path, other: Any
) -> None:
    blank = ["", " ", "\u200b", None, other]
    for number, _ in enumerate(blank):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
        write(tmp_path / f"{number}.txt", f"caption {number}\n")
    told = [{"file_name": f"{number}.png", "text": text} for number, text in enumerate(blank)]
    write(tmp_path / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in told))
    texts = [row["text"] for row in read(open_dataset(tmp_path))]
    assert texts[:4] == [[f"caption {number}"] for number in range(4)]
    assert texts[4] == ["caption 4" if other is None else str(other)]


def test_uuids_are_written_as_people_write_them(tmp_path: Path) -> None:
    uuids_as_ids(tmp_path)
    assert read(open_dataset(tmp_path))[1]["id"] == "00000000-0000-0000-0000-000000000001"


def test_further_pictures_of_a_row_pass_through(tmp_path: Path) -> None:
    a_list_of_pictures(tmp_path)
    assert read(open_dataset(tmp_path))[0]["extra"]["images"][1]["bytes"] == b"2"


def test_a_text_whose_picture_is_gone_is_a_row_without_one(tmp_path: Path) -> None:
    texts_beside(tmp_path)
    (tmp_path / "10_cat" / NAMES[2]).unlink()
    write(tmp_path / "10_cat" / "classes.txt", "cat\ndog\n")
    rows = read(open_dataset(tmp_path))
    assert [row["text"] for row in rows if row["image_reason"]] == [["caption 2"]]


def test_what_detectors_are_trained_on_is_no_caption(tmp_path: Path) -> None:
    pictures(tmp_path)
    for name in NAMES:
        write(tmp_path / name.replace("jpg", "txt"), "0 0.5 0.5 0.25 0.25\n")
    assert {row["text_reason"] for row in read(open_dataset(tmp_path))} == {"no column of texts"}


def test_lists_of_boxes_are_no_rows(tmp_path: Path) -> None:
    pictures(tmp_path / "train")
    images = [{"id": number, "file_name": name} for number, name in enumerate(NAMES)]
    boxes = {"images": images, "annotations": [{"id": 0, "image_id": 0, "bbox": [0, 0, 1, 1]}]}
    write(tmp_path / "train" / "_annotations.coco.json", boxes)
    dataset = open_dataset(tmp_path)
    assert dataset.format == "imagefolder"
    assert len(read(dataset)) == 6


def test_a_picture_in_two_archives_is_taken_from_neither(tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", "image,text\na.jpg,x\nb.jpg,y\n")
    for number, archive in enumerate(("train.zip", "test.zip")):
        with zipfile.ZipFile(tmp_path / archive, "w") as packed:
            packed.writestr("a.jpg", picture(number))
            if not number:
                packed.writestr("b.jpg", picture(7))
    rows = read(open_dataset(tmp_path))
    assert [row["image_reason"] for row in rows] == ["no such file 'a.jpg'", None]


def test_an_archive_that_changes_makes_the_table_new(tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", "image,text\na.jpg,x\n")
    versions = []
    for number in range(2):
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as packed:
            packed.writestr("a.jpg", picture(number) + bytes(number))
        versions.append(open_dataset(tmp_path).files[0].version)
    assert versions[0] != versions[1]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.tar", "a.jsonl"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, POINTER)
    with pytest.raises(DatasetError, match=rf"{name} is a Git LFS pointer.* git lfs pull"):
        read(open_dataset(tmp_path))


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.csv.bz2", "rows.json.xz", "rows.csv.zst"])
def test_a_compressed_file_that_is_cut_is_named(tmp_path: Path, name: str) -> None:
    text = "image,text\n" + "".join(f"{n}.jpg,{os.urandom(40).hex()}\n" for n in range(20_000))
    if "json" in name:
        text = json.dumps(
            [{"image": f"{n}.jpg", "text": os.urandom(40).hex()} for n in range(9999)]
        )
        text = text[1:-1].replace("}, {", "}\n{") if "jsonl" in name else text
    kind = {"gz": "gzip", "bz2": "bz2", "xz": None, "zst": "zstd"}[name.rpartition(".")[2]]
    if kind is None:
        import lzma

        data = lzma.compress(text.encode())
    else:
        data = pa.compress(text.encode(), codec=kind, asbytes=True) if kind == "zstd" else None
        if data is None:
            import bz2
            import gzip

            data = (gzip if kind == "gzip" else bz2).compress(text.encode())
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match="is compressed, and cut or damaged"):
        read(open_dataset(tmp_path))


@pytest.mark.parametrize("caption", ["one", ["one", "two"], None])
def test_an_annotation_of_several_captions_gives_all(tmp_path: Path, caption: Any) -> None:
    pictures(tmp_path)
    told = {
        "images": [{"id": 1, "file_name": NAMES[0]}],
        "annotations": [{"image_id": 1, "caption": "zero"}, {"image_id": 1, "caption": caption}],
    }
    write(tmp_path / "captions.json", told)
    more = caption if isinstance(caption, list) else [caption] if caption else []
    assert read(open_dataset(tmp_path))[0]["text"] == ["zero", *more]


def test_captions_of_an_image_whose_id_is_a_number_here_and_a_string_there_are_its(
    tmp_path: Path,
) -> None:
    pictures(tmp_path)
    told = {
        "images": [{"id": 1, "file_name": NAMES[0]}],
        "annotations": [{"image_id": "1", "caption": "zero"}],
    }
    write(tmp_path / "captions.json", told)
    assert read(open_dataset(tmp_path))[0]["text"] == ["zero"]


@pytest.mark.parametrize("beside", [{}, {"text": "STOP", "image": "a sign"}])
def test_what_images_of_coco_say_besides_is_neither_their_caption_nor_their_path(
    tmp_path: Path, beside: dict[str, str]
) -> None:
    pictures(tmp_path)
    told = {
        "images": [{"id": 1, "file_name": NAMES[0], **beside}],
        "annotations": [{"image_id": 1, "caption": "zero"}],
    }
    write(tmp_path / "captions.json", told)
    (row,) = (r for r in read(open_dataset(tmp_path, format="coco")))
    assert (row["text"], row["image_reason"]) == (["zero"], None)


def test_metadata_may_have_a_text_that_is_called_as_images_are(tmp_path: Path) -> None:
    pictures(tmp_path)
    lines = [f"{name},the picture of a cat no. {n},caption {n}" for n, name in enumerate(NAMES)]
    write(tmp_path / "metadata.csv", "\n".join(["file_name,image,text", *lines]))
    rows = read(open_dataset(tmp_path))
    assert [(r["text"], r["image_reason"]) for r in rows] == [
        ([f"caption {n}"], None) for n in range(6)
    ]
    assert rows[1]["extra"]["source_image"] == "the picture of a cat no. 1"


@pytest.mark.parametrize("form", ["rows", "named", "coco"])
def test_json_that_goes_on_after_its_end_is_refused(tmp_path: Path, form: str) -> None:
    pictures(tmp_path)
    first = {
        "rows": [{"image": NAMES[0], "text": "one"}],
        "named": {NAMES[0]: "one"},
        "coco": {
            "images": [{"id": 1, "file_name": NAMES[0]}],
            "annotations": [{"image_id": 1, "caption": "one"}],
        },
    }[form]
    text = json.dumps(first, indent=1)
    (tmp_path / "captions.json").write_text(f"{text}\n{text.replace('one', 'two')}\n")
    with pytest.raises(DatasetError, match=r"captions\.json: more follows the end of its JSON"):
        read(open_dataset(tmp_path))


def test_captions_of_an_image_of_coco_stand_beside_those_of_its_annotations(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(picture(0))
    told = {
        "images": [{"id": 0, "file_name": "0.png", "captions": ["its own"]}],
        "annotations": [{"image_id": 0, "caption": "an annotation's"}],
    }
    write(tmp_path / "captions.json", json.dumps(told))
    (row,) = read(open_dataset(tmp_path, format="coco"))
    assert row["text"] == ["an annotation's", "its own"]


def test_a_mask_that_metadata_names_beside_an_image_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
        (tmp_path / "masks" / f"{number}.png").write_bytes(picture(number + 2))
    (tmp_path / "masks" / "alone.png").write_bytes(picture(5))
    told = [
        {"file_name": f"{n}.png", "mask_file_name": f"masks/{n}.png", "text": "x"} for n in range(2)
    ]
    write(tmp_path / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in told))
    rows = read(open_dataset(tmp_path))
    held = {row["image"]["bytes"]: row["extra"]["mask_file_name"] for row in rows}
    assert held == {picture(0): "masks/0.png", picture(1): "masks/1.png", picture(5): None}
