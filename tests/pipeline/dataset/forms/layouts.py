"""Datasets as people have them on disk: six pictures, each with its caption."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
import unicodedata
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.pipeline.dataset.forms.small_files import write_jsonl

NAMES = [f"{number:03d}.jpg" for number in range(6)]


def picture(number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 9)).save(buffer, "JPEG")
    return buffer.getvalue()


def pictures(folder: Path, names: list[str] = NAMES) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))


def write(path: Path, text: str | object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")


def flickr8k_on_kaggle(folder: Path) -> None:
    pictures(folder / "Images")
    lines = [f'{name},"caption {number}"' for number, name in enumerate(NAMES)]
    write(folder / "captions.txt", "\n".join(["image,caption", *lines]))


def flickr30k(folder: Path) -> None:
    pictures(folder / "flickr30k_images")
    lines = [f"{name}| {number}|caption {number}" for number, name in enumerate(NAMES)]
    write(folder / "results.csv", "\n".join(["image_name| comment_number| comment", *lines]))


def coco_of_two_splits(folder: Path) -> None:
    for split, names in (("train2017", NAMES[:3]), ("val2017", NAMES[3:])):
        images = [{"id": int(name[:3]), "file_name": name, "height": 8} for name in names]
        captions = [{"image_id": i["id"], "caption": f"caption {i['id']}"} for i in images]
        whole = {"info": {}, "annotations": captions, "images": images}
        write(folder / "annotations" / f"captions_{split}.json", whole)
        boxes = {"images": images, "annotations": [{"bbox": [1, 2, 3, 4]}]}
        write(folder / "annotations" / f"instances_{split}.json", boxes)
    for number, name in enumerate(NAMES):
        split = "train2017" if number < 3 else "val2017"
        write(folder / split / name, "")
        (folder / split / name).write_bytes(picture(number))
        # Of the other split's pictures that are called so as well, none is taken.
        other = "val2017" if number < 3 else "train2017"
        (folder / other).mkdir(exist_ok=True)
        (folder / other / name).write_bytes(picture(100))


def karpathy(folder: Path) -> None:
    pictures(folder / "images")
    images = [
        {"imgid": number, "filename": name, "sentences": [{"raw": f"caption {number}"}]}
        for number, name in enumerate(NAMES)
    ]
    write(folder / "dataset_flickr30k.json", {"dataset": "flickr30k", "images": images})


def llava(folder: Path) -> None:
    pictures(folder / "images")
    entries = [
        {
            "id": name,
            "image": f"images/{name}",
            "conversations": [
                {"from": "human", "value": "<image>\nDescribe it."},
                {"from": "gpt", "value": f"caption {number}"},
            ],
        }
        for number, name in enumerate(NAMES)
    ]
    write(folder / "llava.json", entries)


def captions_within_images(folder: Path) -> None:
    pictures(folder / "images")
    images = [{"id": n, "file_name": name} for n, name in enumerate(NAMES)]
    captions = [{"caption": f"caption {n}"} for n in range(6)]
    told = [image | caption for image, caption in zip(images, captions, strict=True)]
    beside = {"splits": ["train", "val"], "categories": [{"id": 1, "name": "cat"}]}
    write(folder / "captions.json", {"info": {"year": 2024}, **beside, "images": told})


def captions_within_images_beside_boxes(folder: Path) -> None:
    pictures(folder / "images")
    images = [{"id": n, "file_name": m, "captions": [f"caption {n}"]} for n, m in enumerate(NAMES)]
    boxes = [{"id": n, "image_id": n, "bbox": [0, 0, 1, 1]} for n in range(6)]
    write(folder / "train.json", {"annotations": boxes, "images": images, "categories": []})


def captions_by_name(folder: Path) -> None:
    pictures(folder / "images")
    told = {name: f"caption {number}" for number, name in enumerate(NAMES)}
    write(folder / "captions.json", json.dumps(told, indent=2))


def tables_beside_their_pictures(folder: Path) -> None:
    for split, names in (("train", NAMES[:3]), ("val", NAMES[3:])):
        numbers = [int(name[:3]) for name in names]
        renamed = [f"{place}.jpg" for place in range(3)]
        for number, name in zip(numbers, renamed, strict=True):
            (folder / split / "images").mkdir(parents=True, exist_ok=True)
            (folder / split / "images" / name).write_bytes(picture(number))
        lines = [f"images/{name},caption {n}" for n, name in zip(numbers, renamed, strict=True)]
        write(folder / split / "captions.csv", "\n".join(["image,caption", *lines]))


def an_array_within_an_object(folder: Path) -> None:
    pictures(folder / "images")
    rows = [{"image": f"images/{n}", "caption": f"caption {i}"} for i, n in enumerate(NAMES)]
    write(folder / "data.json", {"version": "1.0", "data": rows})


def texts_beside(folder: Path) -> None:
    pictures(folder / "10_cat")
    for number, name in enumerate(NAMES):
        write(folder / "10_cat" / name.replace("jpg", "txt"), f"caption {number}\n")


def texts_in_a_folder_of_their_own(folder: Path) -> None:
    pictures(folder / "images", [f"a/{name}" for name in NAMES])
    for number, name in enumerate(NAMES):
        write(folder / "text" / "a" / name.replace("jpg", "txt"), f"caption {number}")


def metadata_in_capitals(folder: Path) -> None:
    pictures(folder)
    lines = [f"{name},caption {number}" for number, name in enumerate(NAMES)]
    write(folder / "METADATA.CSV", "\n".join(["FILE_NAME,TEXT", *lines]))


def names_by_windows(folder: Path) -> None:
    pictures(folder / "images")
    lines = [f"images\\{n.upper()},caption {i}" for i, n in enumerate(NAMES)]
    write(folder / "metadata.csv", "\n".join(["file_name,text", *lines]))


def names_by_a_mac(folder: Path) -> None:
    names = [f"café {number}.jpg" for number in range(6)]
    pictures(folder, [unicodedata.normalize("NFD", name) for name in names])
    lines = [f"{unicodedata.normalize('NFC', n)},caption {i}" for i, n in enumerate(names)]
    write(folder / "rows.csv", "\n".join(["file,caption", *lines]))


def names_in_latin_1(folder: Path) -> None:
    for number in range(6):
        raw = os.fsencode(str(folder)) + b"/caf\xe9 %d.jpg" % number
        with open(raw, "wb") as file:
            file.write(picture(number))
    lines = [f"café {number}.jpg,caption {number}" for number in range(6)]
    write(folder / "metadata.csv", "\n".join(["file_name,text", *lines]))


def a_snapshot_in_the_hubs_cache(folder: Path) -> Path:
    cache = folder / "datasets--a--b"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, name in enumerate(NAMES):
        (cache / "blobs" / f"{number}").write_bytes(picture(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    rows = [{"file_name": n, "text": f"caption {i}"} for i, n in enumerate(NAMES)]
    write_jsonl(cache / "blobs" / "table", rows)
    (snapshot / "metadata.jsonl").symlink_to("../../blobs/table")
    return snapshot


def the_hubs_cache_of_a_dataset(folder: Path) -> Path:
    a_snapshot_in_the_hubs_cache(folder)
    return folder / "datasets--a--b"


def a_glob_in_a_folder_with_brackets(folder: Path) -> Path:
    pictures(folder / "photos [2024]")
    rows = [{"image": n, "text": f"caption {i}"} for i, n in enumerate(NAMES)]
    write_jsonl(folder / "photos [2024]" / "rows.jsonl", rows)
    return folder / "photos [2024]" / "*.jsonl"


def other_names_of_jpeg(folder: Path) -> None:
    ends = (".jfif", ".jpe", ".JPEG", ".jif", ".mpo", ".apng")
    pictures(folder, [f"{number}{end}" for number, end in enumerate(ends)])
    rows = [{"file_name": f"{i}{end}", "text": f"caption {i}"} for i, end in enumerate(ends)]
    write_jsonl(folder / "metadata.jsonl", rows)


def shards_beside_their_lists(folder: Path) -> None:
    columns = {"key": [n[:3] for n in NAMES], "caption": [f"caption {i}" for i in range(6)]}
    pq.write_table(pa.table(columns | {"status": ["success"] * 6}), folder / "00000.parquet")
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for number, name in enumerate(NAMES):
            info = tarfile.TarInfo(name)
            info.size = len(picture(number))
            tar.addfile(info, io.BytesIO(picture(number)))


def pictures_as_base64(folder: Path) -> None:
    packed = [base64.b64encode(picture(number)).decode() for number in range(6)]
    packed[:3] = [f"data:image/jpeg;base64,{text}" for text in packed[:3]]
    rows = [{"image": text, "text": f"caption {i}"} for i, text in enumerate(packed)]
    write_jsonl(folder / "rows.jsonl", rows)


def uuids_as_ids(folder: Path) -> None:
    numbers = pa.array([uuid.UUID(int=number).bytes for number in range(6)], pa.binary(16))
    columns = {
        "id": pa.ExtensionArray.from_storage(pa.uuid(), numbers),
        "image": [picture(number) for number in range(6)],
        "text": [f"caption {number}" for number in range(6)],
    }
    pq.write_table(pa.table(columns), folder / "a.parquet")


def a_list_of_pictures(folder: Path) -> None:
    kind = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    cells = [[{"bytes": picture(n), "path": "a"}, {"bytes": b"2", "path": "b"}] for n in range(6)]
    columns = {"images": pa.array(cells, kind), "text": [f"caption {n}" for n in range(6)]}
    pq.write_table(pa.table(columns), folder / "a.parquet")


def a_column_known_by_its_values(folder: Path) -> None:
    pictures(folder / "shots")
    lines = [f"{i};shots/{name};caption {i}" for i, name in enumerate(NAMES)]
    write(folder / "styles.csv", "\n".join(["nr;where it is;caption", *lines]))


LAYOUTS: list[Callable[[Path], Path | None]] = [
    flickr8k_on_kaggle,
    flickr30k,
    coco_of_two_splits,
    karpathy,
    llava,
    captions_within_images,
    captions_within_images_beside_boxes,
    captions_by_name,
    tables_beside_their_pictures,
    an_array_within_an_object,
    texts_beside,
    texts_in_a_folder_of_their_own,
    metadata_in_capitals,
    names_by_windows,
    names_by_a_mac,
    names_in_latin_1,
    a_snapshot_in_the_hubs_cache,
    the_hubs_cache_of_a_dataset,
    a_glob_in_a_folder_with_brackets,
    other_names_of_jpeg,
    shards_beside_their_lists,
    pictures_as_base64,
    uuids_as_ids,
    a_list_of_pictures,
    a_column_known_by_its_values,
]
