"""Each layout, read back by what reads it for a living."""

from __future__ import annotations

import io
import json
import math
import statistics
from argparse import Namespace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.export import ExportSettings, export
from pipeline.schema import completed_schema

COUNT = 250
EXTRA = pa.schema([("label", pa.int64()), ("when", pa.timestamp("us")), ("weight", pa.float64())])


def _image(number: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", (8, 6), (number % 256, 40, 90))
    image.save(buffer, ("PNG", "JPEG", "WEBP", "BMP")[number % 4])
    return buffer.getvalue()


def _colour(number: int) -> tuple[int, int, int]:
    return (number % 256, 40, 90)


def _row(number: int, text_is_list: bool) -> dict:
    kind = ("observed", "observed", "text", "image", "rejected", "failed")[number % 6]
    lost = kind in ("rejected", "failed")
    missing = kind if kind in ("text", "image") else "text" if lost else None
    status = "completed" if kind in ("text", "image") else kind
    text = f'caption {number}: a "red" hat\ton <image> é'
    completion = None
    if missing:
        completion = {
            "generator": "blip2" if missing == "text" else "sdxl",
            "model": "tiny|<b>model</b>",
            "revision": "0123abcd",
            "seed": 2**62 + number,
            "examples": [{"id": f"web/{number}", "source": "web", "licence": "CC-BY-4.0"}],
            "candidates": [{"text": "x", "score": 0.1, "valid": True}],
            "score": None if lost else number / 1000,
            "kb_version": "v1",
            "run_id": "r1",
        }
    return {
        "id": f"row/{number:04d}",
        "image": {"bytes": _image(number), "path": "photo.png"},
        "text": None if lost else [text, f"second {number}"] if text_is_list else text,
        "label": number,
        "when": datetime(2026, 1, 1, 12),
        "weight": math.nan if number % 2 else 0.5,
        "status": status,
        "missing": missing,
        "reason": "null" if missing else None,
        "completion": completion,
    }


def _completed(folder: Path, text_is_list: bool = False) -> ds.Dataset:
    schema = completed_schema(text_is_list, EXTRA)
    folder.mkdir()
    for part in range(2):
        rows = [_row(n, text_is_list) for n in range(part * COUNT // 2, (part + 1) * COUNT // 2)]
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, folder / f"part-{part:06d}.parquet", row_group_size=100)
    files = sorted(str(path) for path in folder.glob("*.parquet"))
    return ds.dataset(files, schema=schema, format="parquet")


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> ds.Dataset:
    return _completed(tmp_path_factory.mktemp("run") / "completed")


@pytest.fixture(scope="module")
def with_lists(tmp_path_factory: pytest.TempPathFactory) -> ds.Dataset:
    return _completed(tmp_path_factory.mktemp("lists") / "completed", text_is_list=True)


USABLE = [n for n in range(COUNT) if n % 6 < 4]


def _assert_same_picture(image: Image.Image, number: int) -> None:
    image = image.convert("RGB")
    assert image.size == (8, 6)
    pairs = zip(image.getpixel((4, 3)), _colour(number), strict=True)
    assert all(abs(a - b) <= 12 for a, b in pairs)


class TestReadBack:
    def test_parquet_by_datasets(self, completed: ds.Dataset, tmp_path: Path) -> None:
        from datasets import load_dataset

        made = export(completed, tmp_path / "out", ExportSettings(shard_rows=100))
        files = sorted(p.name for p in (tmp_path / "out" / "data").iterdir())
        assert files == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
        rows = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
        assert made.rows == len(rows) == len(USABLE)
        for row, number in zip(rows, USABLE, strict=True):
            assert row["id"] == f"row/{number:04d}"
            assert row["text"] == _row(number, False)["text"]
            assert row["label"] == number
            _assert_same_picture(row["image"], number)
        assert rows[2]["completion"]["examples"][0]["source"] == "web"
        groups = pq.ParquetFile(tmp_path / "out" / "data" / files[0]).metadata
        assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) <= 100

    def test_parquet_keeps_bytes(self, completed: ds.Dataset, tmp_path: Path) -> None:
        export(completed, tmp_path / "out", ExportSettings())
        table = pq.read_table(tmp_path / "out" / "data")
        expected = completed.to_table()
        expected = expected.filter(pa.array([n % 6 < 4 for n in range(COUNT)]))
        assert table.schema == expected.schema
        assert table.drop_columns("weight").equals(expected.drop_columns("weight"))

    def test_webdataset_by_webdataset(self, completed: ds.Dataset, tmp_path: Path) -> None:
        wds = pytest.importorskip("webdataset")
        export(completed, tmp_path / "out", ExportSettings(format="webdataset", shard_rows=60))
        shards = sorted(str(p) for p in (tmp_path / "out").glob("*.tar"))
        sizes = json.loads((tmp_path / "out" / "sizes.json").read_text())
        assert list(sizes.values()) == [60, 60, len(USABLE) - 120]
        rows = list(wds.WebDataset(shards, shardshuffle=False).decode("pil"))
        assert len(rows) == len(USABLE)
        for row, number in zip(rows, USABLE, strict=True):
            assert row["json"]["id"] == f"row/{number:04d}"
            assert row["txt"] == _row(number, False)["text"]
            assert row["json"]["label"] == number
            assert row["json"]["weight"] == (None if number % 2 else 0.5)
            assert row["json"]["when"] == "2026-01-01T12:00:00"
            image = next(row[e] for e in ("jpg", "png", "webp") if e in row)
            _assert_same_picture(image, number)

    def test_webdataset_by_open_clip(self, completed: ds.Dataset, tmp_path: Path) -> None:
        pytest.importorskip("webdataset")
        import torch
        from open_clip_train.data import get_dataset_size, get_wds_dataset

        export(completed, tmp_path / "out", ExportSettings(format="webdataset", shard_rows=60))
        args = _open_clip_args(f"{tmp_path}/out/{{00000..00002}}.tar")
        info = get_wds_dataset(args, _to_tensor, is_train=False, tokenizer=_tokenize)
        assert get_dataset_size(args.val_data) == (len(USABLE), 3)
        batches = list(info.dataloader)
        images = torch.cat([images for images, _ in batches])
        texts = torch.cat([texts for _, texts in batches])
        assert images.shape == (len(USABLE), 3, 6, 8)
        assert texts.tolist() == [[len(_row(n, False)["text"])] for n in USABLE]

    def test_open_clip_by_open_clip(self, completed: ds.Dataset, tmp_path: Path) -> None:
        pytest.importorskip("webdataset")
        from open_clip_train.data import get_csv_dataset

        export(completed, tmp_path / "out", ExportSettings(format="open_clip"))
        args = _open_clip_args(f"{tmp_path}/out/train.tsv")
        info = get_csv_dataset(args, _to_tensor, is_train=False, tokenizer=_tokenize)
        dataset = info.dataloader.dataset
        assert len(dataset) == len(USABLE)
        texts = [" ".join(_row(n, False)["text"].split()) for n in USABLE]
        assert dataset.captions == texts
        assert sum(len(images) for images, _ in info.dataloader) == len(USABLE)

    def test_imagefolder_by_datasets(self, completed: ds.Dataset, tmp_path: Path) -> None:
        from datasets import load_dataset

        export(completed, tmp_path / "out", ExportSettings(format="imagefolder"))
        rows = load_dataset(
            "imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache")
        )["train"]
        by_id = {row["id"]: row for row in rows}
        assert len(rows) == len(by_id) == len(USABLE)
        for number in USABLE:
            row = by_id[f"row/{number:04d}"]
            expected = _row(number, False)
            assert row["text"] == expected["text"]
            assert row["status"] == expected["status"]
            assert row["provenance"]["seed"] == (expected["completion"] or {}).get("seed")
            _assert_same_picture(row["image"], number)

    def test_imagefolder_by_ourselves(self, completed: ds.Dataset, tmp_path: Path) -> None:
        from pipeline.dataset import Dataset, DatasetSettings

        export(completed, tmp_path / "out", ExportSettings(format="imagefolder"))
        dataset = Dataset.open(DatasetSettings(path="out"), tmp_path)
        rows = [r for f in dataset.files for b in dataset.batches(f) for r in b.to_pylist()]
        assert [r["id"] for r in rows] == [f"row/{n:04d}" for n in USABLE]
        assert [r["image"]["bytes"] for r in rows] == [_image(n) for n in USABLE]

    def test_llava_as_its_trainer_reads_it(self, completed: ds.Dataset, tmp_path: Path) -> None:
        export(completed, tmp_path / "out", ExportSettings(format="llava"))
        entries = json.loads((tmp_path / "out" / "llava.json").read_text())
        assert [entry["id"] for entry in entries] == [f"row/{n:04d}" for n in USABLE]
        for entry, number in zip(entries, USABLE, strict=True):
            asked, told = entry["conversations"]
            assert asked["from"] == "human"
            assert asked["value"].startswith("<image>\n")
            assert told["from"] == "gpt"
            assert told["value"] == _row(number, False)["text"].replace("<image>", "[image]")
            with Image.open(tmp_path / "out" / entry["image"]) as image:
                _assert_same_picture(image, number)
        assert len({entry["conversations"][0]["value"] for entry in entries}) == 3


def test_lists_of_captions_are_kept(with_lists: ds.Dataset, tmp_path: Path) -> None:
    export(with_lists, tmp_path / "llava", ExportSettings(format="llava"))
    entries = json.loads((tmp_path / "llava" / "llava.json").read_text())
    assert len(entries) == 2 * len(USABLE)
    assert len({entry["id"] for entry in entries}) == len(entries)
    export(with_lists, tmp_path / "folder", ExportSettings(format="imagefolder"))
    lines = (tmp_path / "folder" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["texts"][1] for line in lines] == [f"second {n}" for n in USABLE]
    export(with_lists, tmp_path / "table", ExportSettings(format="open_clip"))
    assert len((tmp_path / "table" / "train.tsv").read_text().splitlines()) == 1 + len(entries)
    export(with_lists, tmp_path / "parquet", ExportSettings())
    assert pq.read_table(tmp_path / "parquet" / "data")["text"][0].as_py()[1] == "second 0"


@pytest.mark.parametrize("caption", ["NA", "null", "None", "nan", "n/a"])
def test_captions_that_pandas_takes_for_nothing_stay_captions(tmp_path: Path, caption: str) -> None:
    import pandas as pd

    schema = completed_schema(False)
    row = {"id": "1", "image": {"bytes": _image(0)}, "text": caption, "status": "observed"}
    pq.write_table(pa.Table.from_pylist([row], schema=schema), tmp_path / "part-0.parquet")
    completed = ds.dataset([str(tmp_path / "part-0.parquet")], schema=schema)
    export(completed, tmp_path / "out", ExportSettings(format="open_clip"))
    read = pd.read_csv(tmp_path / "out" / "train.tsv", sep="\t")
    assert str(read["title"][0]).strip() == caption


class TestFilters:
    @pytest.mark.parametrize(
        ("only", "kinds"), [("completed", (2, 3)), ("observed", (0, 1)), ("all", (0, 1, 2, 3))]
    )
    def test_only(
        self, completed: ds.Dataset, tmp_path: Path, only: str, kinds: tuple[int, ...]
    ) -> None:
        made = export(completed, tmp_path / "out", ExportSettings(only=only))
        labels = pq.read_table(tmp_path / "out" / "data")["label"].to_pylist()
        assert labels == [n for n in range(COUNT) if n % 6 in kinds]
        assert made.rows + sum(made.left_out.values()) == COUNT

    def test_min_score_leaves_observed_rows(self, completed: ds.Dataset, tmp_path: Path) -> None:
        made = export(completed, tmp_path / "out", ExportSettings(min_score=0.1))
        labels = pq.read_table(tmp_path / "out" / "data")["label"].to_pylist()
        assert labels == [n for n in USABLE if n % 6 < 2 or n >= 100]
        low = sum(n < 100 and n % 6 in (2, 3) for n in range(COUNT))
        lost = {
            n: sum(m % 6 == i for m in range(COUNT)) for n, i in (("rejected", 4), ("failed", 5))
        }
        assert made.left_out == {"below the score": low, **lost}

    def test_columns(self, completed: ds.Dataset, tmp_path: Path) -> None:
        from datasets import load_dataset

        export(completed, tmp_path / "out", ExportSettings(columns=["status", "label"]))
        rows = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
        assert rows.column_names == ["id", "image", "text", "label", "status"]
        _assert_same_picture(rows[0]["image"], USABLE[0])
        settings = ExportSettings(format="imagefolder", columns=["label"])
        export(completed, tmp_path / "folder", settings)
        line = (tmp_path / "folder" / "metadata.jsonl").read_text().splitlines()[0]
        assert list(json.loads(line)) == ["file_name", "id", "text", "label"]

    def test_an_unknown_column_is_named_with_those_there_are(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match="no column 'labels'; there are id, .*label"):
            export(completed, tmp_path / "out", ExportSettings(columns=["labels"]))

    def test_nothing_left_is_an_error_and_leaves_the_old_export(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        export(completed, tmp_path / "out", ExportSettings(only="observed"))
        before = _listing(tmp_path)
        with pytest.raises(ConfigError, match="no row is left .*below the score"):
            export(completed, tmp_path / "out", ExportSettings(only="completed", min_score=9))
        assert _listing(tmp_path) == before


class TestSwap:
    def test_a_new_export_replaces_the_old_one_whole(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        export(completed, tmp_path / "out", ExportSettings(format="imagefolder"))
        export(completed, tmp_path / "out", ExportSettings(format="llava"))
        assert not (tmp_path / "out" / "metadata.jsonl").exists()
        assert (tmp_path / "out" / "llava.json").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_an_export_that_breaks_off_leaves_the_old_one(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        export(completed, tmp_path / "out", ExportSettings())
        before = _listing(tmp_path)

        def stop(rows: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export(completed, tmp_path / "out", ExportSettings(format="llava"), advance=stop)
        assert _listing(tmp_path) == before

    def test_a_folder_of_something_else_is_left_alone(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("years of work")
        with pytest.raises(ConfigError, match="not an export"):
            export(completed, tmp_path / "out", ExportSettings())
        assert (tmp_path / "out" / "thesis.tex").exists()


class TestCard:
    def test_it_says_what_is_generated_by_what_and_from_whose_pairs(
        self, completed: ds.Dataset, tmp_path: Path
    ) -> None:
        export(completed, tmp_path / "out", ExportSettings(min_score=0.01), name="my photos")
        text = (tmp_path / "out" / "README.md").read_text()
        texts = [n for n in range(COUNT) if n % 6 == 2 and n >= 10]
        images = [n for n in range(COUNT) if n % 6 == 3 and n >= 10]
        assert "# my photos, completed" in text
        assert f"| completed | text | {len(texts)} |" in text
        assert f"| completed | image | {len(images)} |" in text
        assert f"| web | CC-BY-4.0 | {len(texts) + len(images)} |" in text
        assert f"| blip2 | tiny\\|&lt;b&gt;model&lt;/b&gt; | 0123abcd | {len(texts)} |" in text
        assert f"| {statistics.median(texts) / 1000:.3f} |" in text
        assert "with a score of 0.01 or more" in text
        assert "41 failed" in text

    def test_names_from_outside_stay_text(self, completed: ds.Dataset, tmp_path: Path) -> None:
        export(completed, tmp_path / "out", ExportSettings(), name="<script>alert(1)</script>")
        text = (tmp_path / "out" / "README.md").read_text()
        body = text.split("---", 2)[2]
        assert "<script>" not in body
        assert "<b>" not in body
        assert "tiny\\|&lt;b&gt;model" in body

    @pytest.mark.parametrize("format", ["parquet", "webdataset", "imagefolder"])
    def test_its_code_runs(self, completed: ds.Dataset, tmp_path: Path, format: str) -> None:
        if format == "webdataset":
            pytest.importorskip("webdataset")
        export(completed, tmp_path / "out", ExportSettings(format=format))
        text = (tmp_path / "out" / "README.md").read_text()
        code = text.split("```python\n")[1].split("```")[0]
        found: dict = {}
        exec(code, found)  # noqa: S102  the card's own lines
        assert len(list(found["observed"])) == sum(n % 6 < 2 for n in range(COUNT))


def _listing(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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
