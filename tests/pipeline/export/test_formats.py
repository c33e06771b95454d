"""Each layout, read back by what reads it for a living."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.dataset.schema import completed_schema
from pipeline.export.export import export
from pipeline.export.settings import ExportSettings
from tests.pipeline.export.completed_rows import (
    COUNT,
    USABLE,
    assert_same_picture,
    completed_row,
    image_bytes,
    write_completed,
)


def test_parquet_by_datasets(completed: ds.Dataset, tmp_path: Path) -> None:
    from datasets import load_dataset

    made = export(completed, tmp_path / "out", ExportSettings(shard_rows=100))
    files = sorted(p.name for p in (tmp_path / "out" / "data").iterdir())
    assert files == ["train-00000.parquet", "train-00001.parquet"]
    rows = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert made.rows == len(rows) == len(USABLE)
    for row, number in zip(rows, USABLE, strict=True):
        assert row["id"] == f"row/{number:04d}"
        assert row["text"] == completed_row(number)["text"]
        assert row["label"] == number
        assert_same_picture(row["image"], number)
    assert rows[2]["completion"]["examples"][0]["source"] == "web"
    groups = pq.ParquetFile(tmp_path / "out" / "data" / files[0]).metadata
    assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) <= 100


def test_parquet_keeps_bytes(completed: ds.Dataset, tmp_path: Path) -> None:
    export(completed, tmp_path / "out", ExportSettings())
    table = pq.read_table(tmp_path / "out" / "data")
    expected = completed.to_table()
    expected = expected.filter(pa.array([n % 6 < 4 for n in range(COUNT)]))
    assert table.schema == expected.schema
    assert table.drop_columns("weight").equals(expected.drop_columns("weight"))


def test_webdataset_by_webdataset(completed: ds.Dataset, tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    export(completed, tmp_path / "out", ExportSettings(format="webdataset", shard_rows=60))
    shards = sorted(str(p) for p in (tmp_path / "out").glob("*.tar"))
    sizes = json.loads((tmp_path / "out" / "sizes.json").read_text())
    # A file is of whole parts, two here, or of a piece of one that is larger than a file may be.
    assert list(sizes.values()) == [60, 24, 60, len(USABLE) - 144]
    rows = list(wds.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert len(rows) == len(USABLE)
    for row, number in zip(rows, USABLE, strict=True):
        assert row["json"]["id"] == f"row/{number:04d}"
        assert row["txt"] == completed_row(number)["text"]
        assert row["json"]["label"] == number
        assert row["json"]["weight"] == (None if number % 2 else 0.5)
        assert row["json"]["when"] == "2026-01-01T12:00:00"
        image = next(row[e] for e in ("jpg", "png", "webp") if e in row)
        assert_same_picture(image, number)


def test_webdataset_by_open_clip(completed: ds.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    import torch
    from open_clip_train.data import get_dataset_size, get_wds_dataset

    export(completed, tmp_path / "out", ExportSettings(format="webdataset", shard_rows=60))
    args = _open_clip_args(f"{tmp_path}/out/{{00000..00003}}.tar")
    info = get_wds_dataset(args, _to_tensor, is_train=False, tokenizer=_tokenize)
    assert get_dataset_size(args.val_data) == (len(USABLE), 4)
    batches = list(info.dataloader)
    images = torch.cat([images for images, _ in batches])
    texts = torch.cat([texts for _, texts in batches])
    assert images.shape == (len(USABLE), 3, 6, 8)
    assert texts.tolist() == [[len(completed_row(n)["text"])] for n in USABLE]


def test_open_clip_by_open_clip(completed: ds.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    from open_clip_train.data import get_csv_dataset

    export(completed, tmp_path / "out", ExportSettings(format="open_clip"))
    args = _open_clip_args(f"{tmp_path}/out/train.tsv")
    info = get_csv_dataset(args, _to_tensor, is_train=False, tokenizer=_tokenize)
    dataset = info.dataloader.dataset
    assert len(dataset) == len(USABLE)
    texts = [" ".join(completed_row(n)["text"].split()) for n in USABLE]
    assert dataset.captions == texts
    assert sum(len(images) for images, _ in info.dataloader) == len(USABLE)


def test_imagefolder_by_datasets(completed: ds.Dataset, tmp_path: Path) -> None:
    from datasets import load_dataset

    export(completed, tmp_path / "out", ExportSettings(format="imagefolder"))
    rows = load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache")
    )["train"]
    by_id = {row["id"]: row for row in rows}
    assert len(rows) == len(by_id) == len(USABLE)
    for number in USABLE:
        row = by_id[f"row/{number:04d}"]
        expected = completed_row(number)
        assert row["text"] == expected["text"]
        assert row["status"] == expected["status"]
        assert row["provenance"]["seed"] == (expected["completion"] or {}).get("seed")
        assert_same_picture(row["image"], number)


def test_imagefolder_by_ourselves(completed: ds.Dataset, tmp_path: Path) -> None:
    from pipeline.dataset.dataset import Dataset, DatasetSettings

    export(completed, tmp_path / "out", ExportSettings(format="imagefolder"))
    dataset = Dataset.open(DatasetSettings(path="out"), tmp_path)
    rows = [r for f in dataset.files for b in dataset.batches(f) for r in b.to_pylist()]
    assert [r["id"] for r in rows] == [f"row/{n:04d}" for n in USABLE]
    assert [r["image"]["bytes"] for r in rows] == [image_bytes(n) for n in USABLE]


def test_llava_as_its_trainer_reads_it(completed: ds.Dataset, tmp_path: Path) -> None:
    export(completed, tmp_path / "out", ExportSettings(format="llava"))
    entries = json.loads((tmp_path / "out" / "llava.json").read_text())
    assert [entry["id"] for entry in entries] == [f"row/{n:04d}" for n in USABLE]
    for entry, number in zip(entries, USABLE, strict=True):
        asked, told = entry["conversations"]
        assert asked["from"] == "human"
        assert asked["value"].startswith("<image>\n")
        assert told["from"] == "gpt"
        assert told["value"] == completed_row(number)["text"].replace("<image>", "[image]")
        with Image.open(tmp_path / "out" / entry["image"]) as image:
            assert_same_picture(image, number)
    assert len({entry["conversations"][0]["value"] for entry in entries}) == 3


def test_lists_of_captions_are_kept(tmp_path: Path) -> None:
    with_lists = write_completed(tmp_path / "completed", text_is_list=True)
    export(with_lists, tmp_path / "llava", ExportSettings(format="llava"))
    entries = json.loads((tmp_path / "llava" / "llava.json").read_text())
    assert len(entries) == 2 * len(USABLE)
    assert len({entry["id"] for entry in entries}) == len(entries)
    export(with_lists, tmp_path / "folder", ExportSettings(format="imagefolder"))
    table = pq.read_table(tmp_path / "folder" / "metadata.parquet")
    assert [texts[1] for texts in table["texts"].to_pylist()] == [f"second {n}" for n in USABLE]
    export(with_lists, tmp_path / "table", ExportSettings(format="open_clip"))
    assert len((tmp_path / "table" / "train.tsv").read_text().splitlines()) == 1 + len(entries)
    export(with_lists, tmp_path / "parquet", ExportSettings())
    assert pq.read_table(tmp_path / "parquet" / "data")["text"][0].as_py()[1] == "second 0"


@pytest.mark.parametrize("format", ["imagefolder", "webdataset", "llava", "open_clip", "parquet"])
def test_columns_with_the_layouts_own_names_are_kept_under_others(
    tmp_path: Path, format: str
) -> None:
    from datasets import load_dataset

    nested = pa.struct([("mask_file_name", pa.string()), ("area", pa.int64())])
    names = ("texts", "provenance", "conversations", "file_name", "mask_file_name", "profile_name")
    held = {name: f"the source's {name}" for name in names}
    held |= {"file_names": ["a.jpg"], "parts": [{"mask_file_name": "b.png", "area": 3}]}
    extra = pa.schema(
        [
            *((name, pa.string()) for name in (*names, "file_name_in_source")),
            ("file_names", pa.list_(pa.string())),
            ("parts", pa.list_(nested)),
        ]
    )
    schema = completed_schema(False, extra)
    row = {"id": "1", "image": {"bytes": image_bytes(0)}, "text": "a", "status": "observed"}
    pq.write_table(pa.Table.from_pylist([row | held], schema=schema), tmp_path / "part-0.parquet")
    completed = ds.dataset([str(tmp_path / "part-0.parquet")], schema=schema)
    out = tmp_path / "out"
    export(completed, out, ExportSettings(format=format))
    card = (out / "README.md").read_text().replace("\\", "")
    if format == "parquet":
        (found,) = pq.read_table(out / "data").to_pylist()
        assert {name: found[name] for name in held} == held
        return
    if format == "open_clip":  # holds no other columns
        assert (out / "train.tsv").read_text().splitlines()[0].split("\t")[:2] == [
            "filepath",
            "title",
        ]
        return
    if format == "webdataset":
        wds = pytest.importorskip("webdataset")
        (sample,) = wds.WebDataset(str(out / "00000.tar"), shardshuffle=False).decode("pil")
        found, renamed = sample["json"], {"texts", "provenance"}
    elif format == "llava":
        (found,) = json.loads((out / "llava.json").read_text())
        renamed = {"texts", "provenance", "conversations"}
        assert [turn["from"] for turn in found["conversations"]] == ["human", "gpt"]
        assert (out / found["image"]).is_file()
    else:
        rows = load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
        (found,) = rows["train"]
        renamed = {"texts", "provenance", "file_name", "mask_file_name", "file_names"}
        assert_same_picture(found["image"], 0)
        held["parts"] = [{"mask_file_name_in_source": "b.png", "area": 3}]
        held["file_name_in_source_in_source"] = held.pop("file_name")
        renamed.remove("file_name")
        assert "file_name is file_name_in_source_in_source" in card
    expected = {f"{n}_in_source" if n in renamed else n: value for n, value in held.items()}
    assert {name: found[name] for name in expected} == expected
    assert found["provenance"]["examples"] == []
    assert "texts is texts_in_source, provenance is provenance_in_source" in card


@pytest.mark.parametrize("caption", ["NA", "null", "None", "nan", "n/a"])
def test_captions_that_pandas_takes_for_nothing_stay_captions(tmp_path: Path, caption: str) -> None:
    import pandas as pd

    schema = completed_schema(False)
    row = {"id": "1", "image": {"bytes": image_bytes(0)}, "text": caption, "status": "observed"}
    pq.write_table(pa.Table.from_pylist([row], schema=schema), tmp_path / "part-0.parquet")
    completed = ds.dataset([str(tmp_path / "part-0.parquet")], schema=schema)
    export(completed, tmp_path / "out", ExportSettings(format="open_clip"))
    read = pd.read_csv(tmp_path / "out" / "train.tsv", sep="\t")
    assert str(read["title"][0]).strip() == caption


def _to_tensor(image: Image.Image):
    from torchvision.transforms.functional import to_tensor

    return to_tensor(image.convert("RGB"))


def _tokenize(text: str | list[str]):
    import torch

    texts = [text] if isinstance(text, str) else text
    return torch.tensor([[len(t)] for t in texts])


def _open_clip_args(path: str) -> Namespace:
    return Namespace(
        train_data=path,
        val_data=path,
        train_num_samples=None,
        val_num_samples=None,
        dataset_resampled=False,
        train_data_upsampling_factors=None,
        seed=0,
        batch_size=16,
        workers=0,
        world_size=1,
        distributed=False,
        csv_img_key="filepath",
        csv_caption_key="title",
        csv_separator="\t",
    )
