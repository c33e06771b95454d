"""What is refused, before the start or when it is read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.dataset.dataset import DatasetError, DatasetSettings
from tests.pipeline.dataset.forms.small_files import (
    PNG,
    open_dataset,
    read,
    write_jsonl,
    write_parquet,
)


class TestRefusedBeforeTheStart:
    def test_a_path_where_nothing_is(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="nowhere.* is not there"):
            open_dataset(tmp_path / "nowhere")

    def test_a_glob_that_matches_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="no file matches"):
            open_dataset(tmp_path / "*.parquet")

    def test_a_folder_without_data(self, tmp_path: Path) -> None:
        (tmp_path / "notes.md").write_text("hello")
        with pytest.raises(DatasetError, match="holds no dataset"):
            open_dataset(tmp_path)

    def test_a_folder_of_two_forms(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", text=["x"])
        write_jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
        with pytest.raises(DatasetError, match=r"more than one form \(parquet, jsonl\)"):
            open_dataset(tmp_path)
        assert open_dataset(tmp_path, format="jsonl").format == "jsonl"
        assert open_dataset(tmp_path / "*.parquet").format == "parquet"

    def test_a_column_that_is_not_there_and_those_that_are(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", text=["x"], picture=[PNG])
        with pytest.raises(DatasetError, match=r"no column 'img'; there are text .*picture"):
            open_dataset(path, columns={"image": "img"})

    def test_an_image_column_of_numbers(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", text=["x"], image=[1.5])
        with pytest.raises(DatasetError, match="'image' is double, not images"):
            open_dataset(path, columns={"image": "image"})

    def test_an_image_column_of_sentences(self, tmp_path: Path) -> None:
        said = [f"a dog that runs over field {i}." for i in range(9)]
        path = write_parquet(tmp_path / "a.parquet", text=["x"] * 9, image=said)
        with pytest.raises(DatasetError, match="'image' holds texts"):
            open_dataset(path)

    def test_an_image_column_of_bytes_that_are_no_images(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", text=["x"] * 9, image=[b"\x93NUMPY..."] * 9)
        with pytest.raises(DatasetError, match="no images"):
            open_dataset(path)

    def test_a_text_column_of_numbers(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", caption=[1, 2], image=[PNG, PNG])
        with pytest.raises(DatasetError, match="'caption' is int64, not text"):
            open_dataset(path, columns={"text": "caption"})

    def test_no_rows(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", text=pa.array([], pa.string()))
        with pytest.raises(DatasetError, match="has no rows"):
            open_dataset(path)

    def test_an_empty_jsonl(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text("\n")
        with pytest.raises(
            DatasetError, match=r"no file of format jsonl but 1 empty file \(a\.jsonl\)"
        ):
            open_dataset(tmp_path)

    def test_an_image_root_that_is_not_there(self, tmp_path: Path) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", [{"text": "x", "image": "1.png"}])
        with pytest.raises(DatasetError, match="elsewhere"):
            open_dataset(path, image_root=str(tmp_path / "elsewhere"))

    def test_unknown_settings(self) -> None:
        with pytest.raises(ValidationError, match="pathh"):
            DatasetSettings(path="x", pathh="y")


class TestRefusedWhenRead:
    def test_parquet_cut_in_half(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", text=["x"] * 1000, image=[PNG] * 1000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DatasetError, match=r"a\.parquet is not a whole Parquet file"):
            open_dataset(path)

    def test_a_second_parquet_cut_in_half(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", text=["x"] * 1000)
        path = write_parquet(tmp_path / "b.parquet", text=["x"] * 1000)
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(DatasetError, match=r"b\.parquet is not a whole"):
            read(open_dataset(tmp_path))

    def test_parquet_with_a_damaged_page(self, tmp_path: Path) -> None:
        texts = [f"text number {i}" for i in range(5000)]
        path = write_parquet(tmp_path / "a.parquet", image=[PNG] * 5000, text=texts)
        dataset = open_dataset(path)
        data = bytearray(path.read_bytes())
        start = pq.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset
        data[start : start + 4000] = bytes(4000)
        path.write_bytes(data)
        with pytest.raises(DatasetError, match="damaged"):
            read(dataset)

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"text": ["x"], "label": ["1"]}, "'label' is string in b.parquet but int64 in a.par"),
            ({"text": ["x"]}, "b.parquet has no column 'label', which a.parquet has"),
            ({"text": ["x"], "label": [1], "new": [1]}, "b.parquet has a column 'new', which a"),
        ],
    )
    def test_drift_names_both_files_and_the_column(
        self, tmp_path: Path, columns: dict, said: str
    ) -> None:
        write_parquet(tmp_path / "a.parquet", text=["x"], label=[1])
        write_parquet(tmp_path / "b.parquet", **columns)
        with pytest.raises(DatasetError, match=said):
            read(open_dataset(tmp_path))

    def test_columns_in_another_order_are_no_drift(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", text=["x"], label=[1])
        write_parquet(tmp_path / "b.parquet", label=[2], text=["y"])
        rows = read(open_dataset(tmp_path))
        assert [(r["text"], r["extra"]) for r in rows] == [
            (["x"], {"label": 1}),
            (["y"], {"label": 2}),
        ]

    @pytest.mark.parametrize("names", ["ab", "ba"])
    def test_a_file_where_a_column_is_all_null_is_no_drift(
        self, tmp_path: Path, names: str
    ) -> None:
        whole = {"image": [{"bytes": PNG, "path": "p"}], "text": ["x"], "tags": [["t"]]}
        write_parquet(tmp_path / f"{names[0]}.parquet", **whole)
        image = [{"bytes": None, "path": "https://example.com"}]
        write_parquet(tmp_path / f"{names[1]}.parquet", image=image, text=[None], tags=[[]])
        rows = sorted(read(open_dataset(tmp_path)), key=lambda row: str(row["text"]))
        assert [r["image_reason"] for r in rows] == [None, "only a URL 'https://example.com'"]
        assert [r["text_reason"] for r in rows] == [None, "no text in the row"]
        assert [r["extra"]["tags"] for r in rows] == [["t"], []]

    def test_strings_stored_otherwise_are_no_drift(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", text=pa.array(["x"]), image=pa.array([PNG]))
        text = pa.array(["y"]).dictionary_encode()
        write_parquet(tmp_path / "b.parquet", text=text, image=pa.array([PNG], pa.large_binary()))
        assert [r["text"] for r in read(open_dataset(tmp_path))] == [["x"], ["y"]]

    def test_csv_drift(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("text,label\nx,1\n")
        (tmp_path / "b.csv").write_text("text,mark\nx,1\n")
        with pytest.raises(DatasetError, match=r"b\.csv has no column 'label', which a\.csv has"):
            read(open_dataset(tmp_path))

    def test_a_table_of_text_that_is_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"text\nfine\ncaf\xe9\n")
        with pytest.raises(DatasetError, match="the text is not UTF-8"):
            read(open_dataset(tmp_path / "a.csv"))

    def test_json_of_which_many_lines_are_none(self, tmp_path: Path) -> None:
        lines = ['{"text": "ok"}', *['{"text": "ok"}', "{'text': 'ok'}"] * 40]
        (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
        with pytest.raises(DatasetError, match=r"a\.jsonl, row 32: .*; 16 of its first 33 rows"):
            read(open_dataset(tmp_path))

    def test_json_whose_last_line_is_cut(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"text": "ok"}\n{"text": "an')
        with pytest.raises(DatasetError, match=r"a\.jsonl is cut, or its last row is damaged"):
            open_dataset(tmp_path)

    def test_json_whose_first_line_is_none_and_no_other_either(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text("{'text': 'ok'}\n" * 9)
        with pytest.raises(DatasetError, match=r"a\.jsonl is not JSON"):
            open_dataset(tmp_path)

    def test_a_tar_cut_in_half(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as tar:
            for name in ("1.png", "2.png"):
                info = tarfile.TarInfo(name)
                info.size = 5000
                tar.addfile(info, io.BytesIO(bytes(5000)))
        path.write_bytes(path.read_bytes()[:7000])
        with pytest.raises(DatasetError, match=r"a\.tar is .*cut"):
            read(open_dataset(path))

    def test_a_file_that_vanished(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", text=["x"])
        path = write_parquet(tmp_path / "b.parquet", text=["x"])
        dataset = open_dataset(tmp_path)
        files = dataset.files
        path.unlink()
        with pytest.raises(DatasetError, match=r"b\.parquet is no longer there"):
            list(dataset.batches(files[1]))
