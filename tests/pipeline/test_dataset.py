"""What is refused, and which reason a missing half gets."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from pipeline.dataset import ColumnSettings, Dataset, DatasetError, DatasetSettings, guess_columns


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), "red").save(buffer, "PNG")
    return buffer.getvalue()


PNG = _png()


def _open(path: Path, **settings) -> Dataset:
    return Dataset.open(DatasetSettings(path=str(path), **settings), Path("/"))


def _read(dataset: Dataset) -> list[dict]:
    return [r for f in dataset.files for b in dataset.batches(f) for r in b.to_pylist()]


def _parquet(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def _jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class TestRefusedBeforeTheStart:
    def test_a_path_where_nothing_is(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="nowhere.* is not there"):
            _open(tmp_path / "nowhere")

    def test_a_glob_that_matches_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="no file matches"):
            _open(tmp_path / "*.parquet")

    def test_a_folder_without_data(self, tmp_path: Path) -> None:
        (tmp_path / "notes.md").write_text("hello")
        with pytest.raises(DatasetError, match="holds no dataset"):
            _open(tmp_path)

    def test_a_folder_of_two_forms(self, tmp_path: Path) -> None:
        _parquet(tmp_path / "a.parquet", text=["x"])
        _jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
        with pytest.raises(DatasetError, match=r"more than one form \(parquet, jsonl\)"):
            _open(tmp_path)
        assert _open(tmp_path, format="jsonl").format == "jsonl"
        assert _open(tmp_path / "*.parquet").format == "parquet"

    def test_a_column_that_is_not_there_and_those_that_are(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path / "a.parquet", text=["x"], picture=[PNG])
        with pytest.raises(DatasetError, match=r"no column 'img'; there are text .*picture"):
            _open(path, columns={"image": "img"})

    def test_an_image_column_of_numbers(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path / "a.parquet", text=["x"], image=[1.5])
        with pytest.raises(DatasetError, match="'image' is double, not images"):
            _open(path, columns={"image": "image"})

    def test_an_image_column_of_sentences(self, tmp_path: Path) -> None:
        said = [f"a dog that runs over field {i}." for i in range(9)]
        path = _parquet(tmp_path / "a.parquet", text=["x"] * 9, image=said)
        with pytest.raises(DatasetError, match="'image' holds texts"):
            _open(path)

    def test_an_image_column_of_bytes_that_are_no_images(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path / "a.parquet", text=["x"] * 9, image=[b"\x93NUMPY..."] * 9)
        with pytest.raises(DatasetError, match="no images"):
            _open(path)

    def test_a_text_column_of_numbers(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path / "a.parquet", caption=[1, 2], image=[PNG, PNG])
        with pytest.raises(DatasetError, match="'caption' is int64, not text"):
            _open(path, columns={"text": "caption"})

    def test_no_rows(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path / "a.parquet", text=pa.array([], pa.string()))
        with pytest.raises(DatasetError, match="has no rows"):
            _open(path)

    def test_an_empty_jsonl(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text("\n")
        with pytest.raises(DatasetError, match="has no rows"):
            _open(tmp_path)

    def test_an_image_root_that_is_not_there(self, tmp_path: Path) -> None:
        path = _jsonl(tmp_path / "a.jsonl", [{"text": "x", "image": "1.png"}])
        with pytest.raises(DatasetError, match="elsewhere"):
            _open(path, image_root=str(tmp_path / "elsewhere"))

    def test_unknown_settings(self) -> None:
        with pytest.raises(ValidationError, match="pathh"):
            DatasetSettings(path="x", pathh="y")


class TestRefusedWhenRead:
    def test_parquet_cut_in_half(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path / "a.parquet", text=["x"] * 1000, image=[PNG] * 1000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DatasetError, match=r"a\.parquet is not a whole Parquet file"):
            _open(path)

    def test_a_second_parquet_cut_in_half(self, tmp_path: Path) -> None:
        _parquet(tmp_path / "a.parquet", text=["x"] * 1000)
        path = _parquet(tmp_path / "b.parquet", text=["x"] * 1000)
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(DatasetError, match=r"b\.parquet is not a whole"):
            _read(_open(tmp_path))

    def test_parquet_with_a_damaged_page(self, tmp_path: Path) -> None:
        texts = [f"text number {i}" for i in range(5000)]
        path = _parquet(tmp_path / "a.parquet", image=[PNG] * 5000, text=texts)
        dataset = _open(path)
        data = bytearray(path.read_bytes())
        start = pq.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset
        data[start : start + 4000] = bytes(4000)
        path.write_bytes(data)
        with pytest.raises(DatasetError, match="damaged"):
            _read(dataset)

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"text": ["x"], "label": [1.5]}, "'label' is double in b.parquet but int64 in a.par"),
            ({"text": ["x"]}, "b.parquet has no column 'label', which a.parquet has"),
            ({"text": ["x"], "label": [1], "new": [1]}, "b.parquet has a column 'new', which a"),
        ],
    )
    def test_drift_names_both_files_and_the_column(
        self, tmp_path: Path, columns: dict, said: str
    ) -> None:
        _parquet(tmp_path / "a.parquet", text=["x"], label=[1])
        _parquet(tmp_path / "b.parquet", **columns)
        with pytest.raises(DatasetError, match=said):
            _read(_open(tmp_path))

    def test_columns_in_another_order_are_no_drift(self, tmp_path: Path) -> None:
        _parquet(tmp_path / "a.parquet", text=["x"], label=[1])
        _parquet(tmp_path / "b.parquet", label=[2], text=["y"])
        rows = _read(_open(tmp_path))
        assert [(r["text"], r["extra"]) for r in rows] == [
            (["x"], {"label": 1}),
            (["y"], {"label": 2}),
        ]

    @pytest.mark.parametrize("names", ["ab", "ba"])
    def test_a_file_where_a_column_is_all_null_is_no_drift(
        self, tmp_path: Path, names: str
    ) -> None:
        whole = {"image": [{"bytes": PNG, "path": "p"}], "text": ["x"], "tags": [["t"]]}
        _parquet(tmp_path / f"{names[0]}.parquet", **whole)
        image = [{"bytes": None, "path": "https://example.com"}]
        _parquet(tmp_path / f"{names[1]}.parquet", image=image, text=[None], tags=[[]])
        rows = sorted(_read(_open(tmp_path)), key=lambda row: str(row["text"]))
        assert [r["image_reason"] for r in rows] == [None, "url"]
        assert [r["text_reason"] for r in rows] == [None, "null"]
        assert [r["extra"]["tags"] for r in rows] == [["t"], []]

    def test_strings_stored_otherwise_are_no_drift(self, tmp_path: Path) -> None:
        _parquet(tmp_path / "a.parquet", text=pa.array(["x"]), image=pa.array([PNG]))
        text = pa.array(["y"]).dictionary_encode()
        _parquet(tmp_path / "b.parquet", text=text, image=pa.array([PNG], pa.large_binary()))
        assert [r["text"] for r in _read(_open(tmp_path))] == [["x"], ["y"]]

    def test_csv_drift(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("text,label\nx,1\n")
        (tmp_path / "b.csv").write_text("text,mark\nx,1\n")
        with pytest.raises(DatasetError, match=r"b\.csv has no column 'label', which a\.csv has"):
            _read(_open(tmp_path))

    def test_a_jsonl_value_of_another_type_is_named_by_its_row(self, tmp_path: Path) -> None:
        rows = [{"text": "x", "score": 1}] * 20_000 + [{"text": "y", "score": "high"}]
        path = _jsonl(tmp_path / "a.jsonl", rows)
        with pytest.raises(DatasetError, match=r"row 20000: column 'score' holds \"high\""):
            _read(_open(path))

    def test_a_jsonl_column_that_comes_late_is_named(self, tmp_path: Path) -> None:
        path = _jsonl(tmp_path / "a.jsonl", [{"text": "x"}] * 10_001 + [{"text": "y", "mark": 1}])
        with pytest.raises(DatasetError, match="row 10001: column 'mark'"):
            _read(_open(path))

    def test_text_that_is_not_utf8(self, tmp_path: Path) -> None:
        latin = b"caf\xe9"
        bad = pa.array([b"fine", latin]).cast(pa.binary())
        raw = pa.StringArray.from_buffers(2, bad.buffers()[1], bad.buffers()[2])
        pq.write_table(pa.table({"text": raw}), tmp_path / "a.parquet")
        with pytest.raises(DatasetError, match="'text' is not UTF-8"):
            _read(_open(tmp_path / "a.parquet"))
        (tmp_path / "a.jsonl").write_bytes(b'{"text": "' + latin + b'"}\n')
        with pytest.raises(DatasetError, match="row 0: the text is not UTF-8"):
            _open(tmp_path / "a.jsonl")
        (tmp_path / "a.csv").write_bytes(b"text\nfine\n" + latin + b"\n")
        with pytest.raises(DatasetError, match="the text is not UTF-8"):
            _read(_open(tmp_path / "a.csv"))
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            info = tarfile.TarInfo("1.txt")
            info.size = len(latin)
            tar.addfile(info, io.BytesIO(latin))
        with pytest.raises(DatasetError, match=r"1\.txt: the text is not UTF-8"):
            _open(tmp_path / "a.tar")

    def test_half_an_emoji_in_json_is_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"text": "ok"}\n{"text": "\\ud83d"}\n')
        with pytest.raises(DatasetError, match="row 1: column 'text' is not UTF-8"):
            _read(_open(tmp_path))

    def test_a_line_that_is_not_json(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"text": "ok"}\n{"text": \n')
        with pytest.raises(DatasetError, match="row 1: the line is not JSON"):
            _open(tmp_path)

    def test_null_and_empty_ids(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path / "a.parquet", id=["a", None], text=["x", "y"])
        with pytest.raises(DatasetError, match="row 1: the id .* is null"):
            _read(_open(path))
        path = _parquet(tmp_path / "b.parquet", id=["a", ""], text=["x", "y"])
        with pytest.raises(DatasetError, match="row 1: the id .* is empty"):
            _read(_open(path))

    def test_a_tar_cut_in_half(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as tar:
            for name in ("1.png", "2.png"):
                info = tarfile.TarInfo(name)
                info.size = 5000
                tar.addfile(info, io.BytesIO(bytes(5000)))
        path.write_bytes(path.read_bytes()[:7000])
        with pytest.raises(DatasetError, match=r"a\.tar is .*cut"):
            _read(_open(path))

    def test_a_file_that_vanished(self, tmp_path: Path) -> None:
        _parquet(tmp_path / "a.parquet", text=["x"])
        path = _parquet(tmp_path / "b.parquet", text=["x"])
        dataset = _open(tmp_path)
        files = dataset.files
        path.unlink()
        with pytest.raises(DatasetError, match=r"b\.parquet is no longer there"):
            list(dataset.batches(files[1]))


class TestImagesByPath:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "data"
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "a.png").write_bytes(PNG)
        (folder / "empty.png").write_bytes(b"")
        (tmp_path / "secret.png").write_bytes(PNG)
        (tmp_path / "data-too").mkdir()
        (tmp_path / "data-too" / "a.png").write_bytes(PNG)
        (folder / "link.png").symlink_to(tmp_path / "secret.png")
        (folder / "inner.png").symlink_to(folder / "deep" / "a.png")
        (folder / "out").symlink_to(tmp_path)
        (folder / "round.png").symlink_to(folder / "round.png")
        os.mkfifo(folder / "pipe.png")
        return folder

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("deep/a.png", None),
            ("./deep/../deep/a.png", None),
            ("inner.png", None),
            ("{folder}/deep/a.png", None),
            ("../secret.png", "outside"),
            ("../nothing.png", "outside"),
            ("../data-too/a.png", "outside"),
            ("deep/../../secret.png", "outside"),
            ("link.png", "outside"),
            ("out/secret.png", "outside"),
            ("/etc/hostname", "outside"),
            ("/proc/self/environ", "outside"),
            ("missing.png", "not found"),
            ("deep/a.png/b.png", "not found"),
            ("x" * 5000 + ".png", "not found"),
            ("nul\0.png", "not found"),
            ("round.png", "not readable"),
            ("pipe.png", "not a file"),
            ("deep", "not a file"),
            ("empty.png", "empty"),
            ("", "empty"),
            ("https://example.com/a.png", "url"),
            ("file:///etc/hostname", "url"),
            ("data:image/png;base64,AAAA", "url"),
            (None, "null"),
        ],
    )
    def test_paths_stay_within_the_folder(
        self, folder: Path, path: str | None, reason: str | None
    ) -> None:
        path = path and path.replace("{folder}", str(folder))
        _jsonl(folder / "rows.jsonl", [{"text": "x", "image": path}])
        row = _read(_open(folder))[0]
        assert row["image_reason"] == reason
        assert row["image"]["bytes"] == (None if reason else PNG)

    def test_a_struct_with_a_path_alone_is_read(self, folder: Path) -> None:
        cells = [{"bytes": None, "path": "deep/a.png"}, {"bytes": b"", "path": None}]
        _parquet(folder / "a.parquet", image=cells, text=["x", "y"])
        rows = _read(_open(folder))
        assert [r["image"]["bytes"] for r in rows] == [PNG, None]
        assert [r["image_reason"] for r in rows] == [None, "empty"]

    def test_image_root_is_where_paths_are_relative_to(self, folder: Path) -> None:
        other = folder.parent / "rows"
        other.mkdir()
        _jsonl(other / "rows.jsonl", [{"text": "x", "image": "a.png"}])
        row = _read(_open(other, image_root=str(folder / "deep")))[0]
        assert row["image"]["bytes"] == PNG

    def test_an_image_that_arrives_makes_its_file_new(self, folder: Path) -> None:
        _jsonl(folder / "rows.jsonl", [{"text": "x", "image": "late.png"}])
        before = _open(folder).files[0].version
        assert _open(folder).files[0].version == before
        (folder / "late.png").write_bytes(PNG)
        assert _open(folder).files[0].version != before


class TestImageFolder:
    def test_images_without_metadata_are_rows_without_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        (tmp_path / "b.png").write_bytes(PNG)
        _jsonl(tmp_path / "metadata.jsonl", [{"file_name": "b.png", "text": "b"}])
        rows = _read(_open(tmp_path))
        assert [(r["image"]["path"], r["text"]) for r in rows] == [("a.png", []), ("b.png", ["b"])]

    def test_a_folder_of_images_alone(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        for name in ("b.png", "a.PNG", "deep/c.jpg"):
            (tmp_path / name).write_bytes(PNG)
        dataset = _open(tmp_path)
        rows = _read(dataset)
        assert [r["image"]["path"] for r in rows] == ["a.PNG", "b.png", "deep/c.jpg"]
        assert {r["text_reason"] for r in rows} == {"absent"}
        assert dataset.fetch(dataset.files[0], [1])["image"][0].as_py()["path"] == "b.png"

    def test_metadata_paths_cannot_leave_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "secret.png").write_bytes(PNG)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.png").write_bytes(PNG)
        _jsonl(tmp_path / "data" / "metadata.jsonl", [{"file_name": "../secret.png", "text": "x"}])
        rows = _read(_open(tmp_path / "data"))
        assert sorted(str(r["image_reason"]) for r in rows) == ["None", "outside"]

    def test_an_image_that_changes_makes_its_files_new(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        _jsonl(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "text": "x"}])
        before = {f.name: f.version for f in _open(tmp_path).files}
        (tmp_path / "a.png").write_bytes(PNG + b" ")
        after = {f.name: f.version for f in _open(tmp_path).files}
        assert before.keys() == after.keys()
        assert before["metadata.jsonl"] != after["metadata.jsonl"]


class TestTexts:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("a dog", None),
            ("\U0001f600", None),
            ("שלום", None),
            ("x" * 100_000, None),
            ("a\0b", None),
            ("", "empty"),
            (" \t\n\u3000", "whitespace"),
            ("\0", "invisible characters"),
            ("\ufeff\u200b ", "invisible characters"),
            (None, "null"),
        ],
    )
    def test_blank_texts_are_missing_and_others_are_left_alone(
        self, tmp_path: Path, text: str | None, reason: str | None
    ) -> None:
        row = _read(_open(_parquet(tmp_path / "a.parquet", text=[text, "x"], image=[PNG] * 2)))[0]
        assert row["text"] == ([] if reason else [text])
        assert row["text_reason"] == reason

    def test_lists_keep_the_captions_that_are_not_blank(self, tmp_path: Path) -> None:
        lists = [["a", " ", None, "b"], [], None, [None], ["", " "], [""]]
        dataset = _open(_parquet(tmp_path / "a.parquet", captions=lists, image=[PNG] * 6))
        rows = _read(dataset)
        assert dataset.text_is_list
        assert [r["text"] for r in rows] == [["a", "b"], [], [], [], [], []]
        reasons = [None, "empty", "null", "null", "whitespace", "empty"]
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
        path = _parquet(tmp_path / "a.parquet", id=["1", "1"], text=["x", "y"], image=[PNG] * 2)
        dataset = _open(path, columns={"id": "none", "image": "none"})
        rows = _read(dataset)
        assert not dataset.has_id
        assert [r["id"] for r in rows] == [None, None]
        assert [r["image_reason"] for r in rows] == ["absent", "absent"]
        assert dataset.extra_schema.names == ["source_id", "source_image"]

    def test_whole_numbers_become_strings(self, tmp_path: Path) -> None:
        rows = _read(_open(_parquet(tmp_path / "a.parquet", id=[7, 12], text=["x", "y"])))
        assert [r["id"] for r in rows] == ["7", "12"]

    def test_other_columns_pass_through_untouched(self, tmp_path: Path) -> None:
        deep = [{"a": [1, 2], "b": None}]
        path = _parquet(tmp_path / "a.parquet", text=["x"], deep=deep, status=["ok"], score=[0.5])
        dataset = _open(path)
        assert _read(dataset)[0]["extra"] == {
            "deep": deep[0],
            "source_status": "ok",
            "score": 0.5,
        }
        assert dataset.extra_schema.names == ["deep", "source_status", "score"]

    def test_only_the_extra_columns_asked_for(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path / "a.parquet", text=["x"], a=[1], b=[2])
        dataset = _open(path, columns=ColumnSettings(extra=["b"]))
        assert _read(dataset)[0]["extra"] == {"b": 2}
        dataset = _open(path, columns=ColumnSettings(extra=[]))
        assert "extra" not in dataset.schema.names

    def test_json_objects_pass_as_their_json(self, tmp_path: Path) -> None:
        rows = [{"text": "x", "meta": {"a": 1}}, {"text": "y", "meta": {"b": [2]}}]
        read = _read(_open(_jsonl(tmp_path / "a.jsonl", rows)))
        assert [json.loads(r["extra"]["meta"]) for r in read] == [{"a": 1}, {"b": [2]}]

    def test_csv_keeps_leading_zeros(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text('id,text,code\n007,"a\nb",01.50\n008,"",\n')
        rows = _read(_open(tmp_path))
        assert [(r["id"], r["text"]) for r in rows] == [("007", ["a\nb"]), ("008", [])]
        assert [r["text_reason"] for r in rows] == [None, "empty"]
        assert [r["extra"]["code"] for r in rows] == ["01.50", None]


def test_runs_and_exports_within_the_folder_are_not_its_data(tmp_path: Path) -> None:
    _parquet(tmp_path / "a.parquet", text=["x"])
    run = tmp_path / "runs" / "first"
    for name in ("ledger", "completed", "exports"):
        (run / name).mkdir(parents=True)
    _parquet(run / "completed" / "part-0.parquet", other=["y"])
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / ".export.json").write_text("{}")
    _parquet(tmp_path / "export" / "b.parquet", other=["y"])
    assert [file.name for file in _open(tmp_path).files] == ["a.parquet"]
    assert [file.name for file in _open(tmp_path / "export", columns={"text": "other"}).files] == [
        "b.parquet"
    ]


def test_large_images_make_small_batches(tmp_path: Path) -> None:
    big = PNG + bytes(20 << 20)
    path = _parquet(tmp_path / "a.parquet", image=[big] * 12, text=["x"] * 12)
    sizes = [batch.num_rows for batch in _open(path).batches(_open(path).files[0])]
    assert sum(sizes) == 12
    assert max(sizes) <= 4


def test_reading_one_row_does_not_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    images = [PNG + os.urandom(10_000) for _ in range(1000)]
    pq.write_table(pa.table({"image": images, "text": ["x"] * 1000}), path, row_group_size=50)
    dataset = _open(path)
    read = 0

    class Counting(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            nonlocal read
            data = super().read(size)
            read += len(data)
            return data

    dataset._source.root.open = lambda name: Counting(path, "rb")
    table = dataset.fetch(dataset.files[0], [999])
    assert table["image"][0].as_py()["bytes"] == images[999]
    assert 0 < read < path.stat().st_size / 8


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
    rows = _read(dataset)
    assert [r["image_reason"] for r in rows] == [None, "outside", "not found"]
    assert rows[0]["image"]["bytes"] == PNG
    before = dataset.files[0].version
    fs.pipe("/bucket/data/pictures/b.png", PNG)
    again = Dataset.open(DatasetSettings(path="memory://bucket/data"), Path("/"))
    assert again.files[0].version != before
    assert dataset.files[0].url.startswith("memory://")
