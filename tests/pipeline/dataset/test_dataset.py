"""What texts and columns become, and what a dataset reads."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.catalog import encoded_images, fetch
from pipeline.dataset.columns import guess_columns
from pipeline.dataset.dataset import (
    ColumnSettings,
    Dataset,
    DatasetSettings,
    SourceFile,
)
from tests.pipeline.dataset.forms.small_files import (
    PNG,
    open_dataset,
    read,
    write_jsonl,
    write_parquet,
)


class TestTexts:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("a dog", None),
            ("\U0001f600", None),
            ("שלום", None),
            ("x" * 100_000, None),
            ("a\0b", None),
            ("", "empty text"),
            (" \t\n\u3000", "only white space"),
            ("\0", "only invisible characters"),
            ("\ufeff\u200b ", "only invisible characters"),
            (None, "no text in the row"),
        ],
    )
    def test_blank_texts_are_missing_and_others_are_left_alone(
        self, tmp_path: Path, text: str | None, reason: str | None
    ) -> None:
        row = read(
            open_dataset(write_parquet(tmp_path / "a.parquet", text=[text, "x"], image=[PNG] * 2))
        )[0]
        assert row["text"] == ([] if reason else [text])
        assert row["text_reason"] == reason

    def test_lists_keep_the_captions_that_are_not_blank(self, tmp_path: Path) -> None:
        lists = [["a", " ", None, "b"], [], None, [None], ["", " "], [""]]
        dataset = open_dataset(
            write_parquet(tmp_path / "a.parquet", captions=lists, image=[PNG] * 6)
        )
        rows = read(dataset)
        assert dataset.text_is_list
        assert [r["text"] for r in rows] == [["a", "b"], [], [], [], [], []]
        reasons = [
            None,
            "empty text",
            "no text in the row",
            "no text in the row",
            "only white space",
            "empty text",
        ]
        assert [r["text_reason"] for r in rows] == reasons


class TestColumns:
    @pytest.mark.parametrize(
        ("names", "found"),
        [
            ({"jpg": PNG, "txt": "x", "__key__": "1"}, ("__key__", "jpg", "txt")),
            ({"Image": PNG, "Caption": "x", "ID": 7}, ("ID", "Image", "Caption")),
            ({"image": "a.png", "text": "x", "caption": "y"}, (None, "image", "text")),
            ({"file_name": "a.png", "alt_text": "x"}, (None, "file_name", "alt_text")),
            ({"thing": PNG, "caption_en": "x"}, (None, "thing", "caption_en")),
            ({"text": 5, "title": "x"}, (None, None, "title")),
            ({"captions": ["x"], "image": 3}, (None, None, "captions")),
        ],
    )
    def test_are_guessed_by_name_and_type(self, names: dict, found: tuple) -> None:
        schema = pa.table({name: [value] for name, value in names.items()}).schema
        guess = guess_columns(schema)
        assert (guess.id, guess.image, guess.text) == found

    def test_none_turns_a_guess_off(self, tmp_path: Path) -> None:
        path = write_parquet(
            tmp_path / "a.parquet", id=["1", "1"], text=["x", "y"], image=[PNG] * 2
        )
        dataset = open_dataset(path, columns={"id": "none", "image": "none"})
        rows = read(dataset)
        assert not dataset.has_id
        assert [r["id"] for r in rows] == [None, None]
        assert [r["image_reason"] for r in rows] == ["no column of images"] * 2
        assert dataset.extra_schema.names == ["source_id", "source_image"]

    def test_whole_numbers_become_strings(self, tmp_path: Path) -> None:
        rows = read(
            open_dataset(write_parquet(tmp_path / "a.parquet", id=[7, 12], text=["x", "y"]))
        )
        assert [r["id"] for r in rows] == ["7", "12"]

    def test_other_columns_pass_through_untouched(self, tmp_path: Path) -> None:
        deep = [{"a": [1, 2], "b": None}]
        path = write_parquet(
            tmp_path / "a.parquet", text=["x"], deep=deep, status=["ok"], score=[0.5]
        )
        dataset = open_dataset(path)
        assert read(dataset)[0]["extra"] == {
            "deep": deep[0],
            "source_status": "ok",
            "score": 0.5,
        }
        assert dataset.extra_schema.names == ["deep", "source_status", "score"]

    def test_only_the_extra_columns_asked_for(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", text=["x"], a=[1], b=[2])
        dataset = open_dataset(path, columns=ColumnSettings(extra=["b"]))
        assert read(dataset)[0]["extra"] == {"b": 2}
        dataset = open_dataset(path, columns=ColumnSettings(extra=[]))
        assert "extra" not in dataset.schema.names

    def test_json_objects_pass_as_their_json(self, tmp_path: Path) -> None:
        rows = [{"text": "x", "meta": {"a": 1}}, {"text": "y", "meta": {"b": [2]}}]
        found = read(open_dataset(write_jsonl(tmp_path / "a.jsonl", rows)))
        assert [json.loads(r["extra"]["meta"]) for r in found] == [{"a": 1}, {"b": [2]}]

    def test_csv_keeps_leading_zeros(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text('id,text,code\n007,"a\nb",01.50\n008,"",\n')
        rows = read(open_dataset(tmp_path))
        assert [(r["id"], r["text"]) for r in rows] == [("007", ["a\nb"]), ("008", [])]
        assert [r["text_reason"] for r in rows] == [None, "empty text"]
        assert [r["extra"]["code"] for r in rows] == ["01.50", None]


def test_runs_and_exports_within_the_folder_are_not_its_data(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", text=["x"])
    run = tmp_path / "runs" / "first"
    for name in ("ledger", "completed", "exports"):
        (run / name).mkdir(parents=True)
    write_parquet(run / "completed" / "part-0.parquet", other=["y"])
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / ".export.json").write_text("{}")
    write_parquet(tmp_path / "export" / "b.parquet", other=["y"])
    assert [file.name for file in open_dataset(tmp_path).files] == ["a.parquet"]
    assert [
        file.name for file in open_dataset(tmp_path / "export", columns={"text": "other"}).files
    ] == ["b.parquet"]


@pytest.mark.parametrize("memory", [False, True])
def test_what_spark_and_delta_lay_beside_data_is_none(tmp_path: Path, memory: bool) -> None:
    folder = tmp_path / "data"
    names = ["_day=1/part-0.parquet", "_day=2/_part-1.parquet"]
    beside = ["_delta_log/0.checkpoint.parquet", "_temporary/0/part-2.parquet", ".part-3.parquet"]
    for name in names + beside:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(folder / name, **{"text" if name in names else "other": ["x"]})
    for name in ("_SUCCESS", "_metadata", "_common_metadata", "_day=1/_SUCCESS"):
        (folder / name).write_bytes(b"")
    path = str(folder)
    if memory:
        import fsspec

        path = f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").put(f"{folder}/", f"/{tmp_path.name}/", recursive=True)
    dataset = Dataset.open(DatasetSettings(path=path), Path("/"))
    assert [file.name for file in dataset.files] == names


def test_large_images_make_small_batches(tmp_path: Path) -> None:
    images = [PNG + bytes([number]) * (20 << 20) for number in range(5)]
    path = write_parquet(tmp_path / "a.parquet", image=images, text=["x"] * 5)
    dataset = open_dataset(path)
    assert [batch.num_rows for batch in dataset.batches(dataset.files[0])] == [3, 2]


def test_reading_one_row_does_not_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    images = [PNG + os.urandom(10_000) for _ in range(1000)]
    pq.write_table(pa.table({"image": images, "text": ["x"] * 1000}), path, row_group_size=50)
    dataset = open_dataset(path)
    read = 0

    class Counting(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            nonlocal read
            data = super().read(size)
            read += len(data)
            return data

    dataset.source.root.open = lambda name: Counting(path, "rb")
    table = dataset.fetch(dataset.files[0], [999])
    assert table["image"][0].as_py()["bytes"] == images[999]
    assert 0 < read < path.stat().st_size / 8


def test_rows_with_more_images_than_an_array_holds_are_fetched_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_parquet(tmp_path / f"{name}.parquet", image=[PNG] * 20, text=["x"] * 20)
    dataset = open_dataset(tmp_path)
    # 40 images of 64 MB that share their bytes.
    size = 64 << 20
    data = pa.Array.from_buffers(
        pa.binary(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, size)), pa.py_buffer(bytes(size))]
    )
    image = pa.StructArray.from_arrays([data, pa.nulls(1, pa.string())], names=["bytes", "path"])
    original = Dataset.fetch

    def large(self: Dataset, file: SourceFile, positions: Sequence[int]) -> pa.Table:
        table = original(self, file, positions)
        place = table.schema.get_field_index("image")
        return table.set_column(place, "image", pa.chunked_array([image] * len(table)))

    monkeypatch.setattr(Dataset, "fetch", large)
    places = [(file, position) for position in range(20) for file in (1, 0)]
    found = fetch(dataset, places)
    assert found["position"].to_pylist() == [position for _, position in places]
    lengths = pc.binary_length(encoded_images(found)).to_pylist()
    assert lengths == [size] * 40


def test_a_dataset_in_memory_reads_like_one_on_disk() -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.makedirs("/bucket/data/pictures", exist_ok=True)
    fs.pipe("/bucket/data/pictures/a.png", PNG)
    fs.pipe("/bucket/secret.png", PNG)
    lines = [
        {"id": 1, "text": "x", "image": "pictures/a.png"},
        {"id": 2, "text": "y", "image": "../secret.png"},
        {"id": 3, "text": "z", "image": "pictures/b.png"},
    ]
    fs.pipe("/bucket/data/rows.jsonl", "\n".join(map(json.dumps, lines)).encode())
    dataset = Dataset.open(DatasetSettings(path="memory://bucket/data"), Path("/"))
    rows = read(dataset)
    assert [r["image_reason"] for r in rows] == [
        None,
        "outside the data's folder '../secret.png'",
        "no such file 'pictures/b.png'",
    ]
    assert rows[0]["image"]["bytes"] == PNG
    before = dataset.files[0].version
    fs.pipe("/bucket/data/pictures/b.png", PNG)
    again = Dataset.open(DatasetSettings(path="memory://bucket/data"), Path("/"))
    assert again.files[0].version != before
    assert dataset.files[0].url.startswith("memory://")
