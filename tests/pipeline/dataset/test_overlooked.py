"""What lies there and is not used is told by init, by inspect, and by a run that generates meanwhile."""

from __future__ import annotations

import io
import json
import logging
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import Dataset, DatasetError, DatasetSettings
from pipeline.dataset.forms.reasons import by_kind
from pipeline.dataset.overlooked import overlooked
from tests import quick_worlds
from tests.pipeline.dataset.forms.small_files import PNG
from tests.pipeline.dataset.forms.test_tars import write_tar

LITTER = (
    *(".DS_Store", "Thumbs.db", "desktop.ini", "README", "README.md", "LICENSE.txt", "SHA256SUMS"),
    *("checksums.md5", "dataset_infos.json", "load.py", "__MACOSX/a.txt", "data.yaml"),
)


def catalog_of(folder: Path, **settings) -> Catalog:
    dataset = Dataset.open(DatasetSettings(path=str(folder / "data"), **settings), folder)
    return Catalog.scan(dataset, folder / "catalog")


def put(folder: Path, names: list[str] | tuple[str, ...], data: bytes = b"x") -> None:
    for name in names:
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_files_that_no_form_reads_are_counted_by_suffix(tmp_path: Path) -> None:
    put(tmp_path, [f"{n}.png" for n in range(5)], PNG)
    put(tmp_path, ["more.7z", *(f"notes {n}.TXT" for n in range(3)), "shard.tfrecord", "LIST"])
    put(tmp_path, LITTER)
    assert overlooked(catalog_of(tmp_path)) == [
        "3 .txt files (notes 0.TXT, notes 1.TXT, …) are not used",
        "1 file without a suffix (LIST) is not used",
        "1 .7z file (more.7z) is not used; unpack it if it holds data",
        "1 .tfrecord file (shard.tfrecord) is not used; that form is not read: write Parquet, JSON"
        " Lines, CSV or WebDataset of it",
    ]


def test_pictures_that_no_row_names_are_counted_and_those_it_names_are_not(tmp_path: Path) -> None:
    put(tmp_path, [f"images/{n}.png" for n in range(5)], PNG)
    rows = [{"image": f"images\\{n}.PNG", "text": "x"} for n in range(3)]
    put(tmp_path, ["rows.jsonl"], "".join(json.dumps(row) + "\n" for row in rows).encode())
    catalog = catalog_of(tmp_path)
    assert len(catalog.complete()) == 3
    assert overlooked(catalog) == [
        "2 .png files (images/3.png, images/4.png) are not used: no row names them"
    ]
    again = catalog_of(tmp_path)
    assert overlooked(again) == overlooked(catalog)


def test_rows_in_a_file_that_is_called_like_a_licence_are_rows(tmp_path: Path) -> None:
    put(tmp_path, ["1.png", "license-plate-2.png", "license-plate-3.png"], PNG)
    for name, image in (("rows.jsonl", "1.png"), ("License-plates.jsonl", "license-plate-2.png")):
        put(tmp_path, [name], json.dumps({"image": image, "text": "x"}).encode() + b"\n")
    catalog = catalog_of(tmp_path)
    assert len(catalog.complete()) == 2
    assert overlooked(catalog) == ["1 .png file (license-plate-3.png) is not used: no row names it"]


def test_arrays_and_empty_pictures_of_a_sample_are_named(tmp_path: Path) -> None:
    members = {"a.png": PNG, "a.txt": b"x", "b.npy": b"\x93NUMPY", "b.txt": b"y", "c.png": b""}
    (tmp_path / "data").mkdir()
    write_tar(tmp_path / "data" / "0.tar", list(members.items()))
    catalog = catalog_of(tmp_path)
    assert catalog.reasons()["image"] == {"empty file 'c.png'": 1, "no image in the row": 1}
    (line,) = overlooked(catalog)
    assert line.startswith("rows without image in 'image' that have one in 'npy': 1; ")


def test_what_coco_says_of_captions_besides_is_named(tmp_path: Path) -> None:
    captions = [
        {"id": 1, "image_id": 1, "caption": "a cat", "is_rejected": False},
        {"id": 2, "image_id": 1, "caption": "too blurred", "is_rejected": True},
    ]
    told = {"images": [{"id": 1, "file_name": "1.png"}], "annotations": captions}
    put(tmp_path, ["1.png"], PNG)
    put(tmp_path, ["captions.json"], json.dumps(told).encode())
    assert overlooked(catalog_of(tmp_path)) == [
        "values that annotations have besides a caption: 2 (captions.json: is_rejected), not used"
    ]


def test_columns_that_may_hold_what_was_not_found_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    columns = {"image": [PNG] * 3, "nr": [1, 2, 3], "legenda": ["a", "b", "c"]}
    pq.write_table(pa.table(columns), tmp_path / "data" / "a.parquet")
    (line,) = overlooked(catalog_of(tmp_path))
    assert line.startswith("no column of texts was found by its name") and "'legenda'" in line
    meant = catalog_of(tmp_path, columns={"text": "none"})
    assert overlooked(meant, in_use=True) == []


@pytest.mark.parametrize(
    ("captions", "kind"),
    [
        (pa.array([b"a", b"b"]), "binary"),
        (pa.array([[{"raw": "a"}], None]), "list<element: struct<raw: string>>"),
        (pa.array([[("en", "a")]] * 2, pa.map_("string", "string")), "list<item: struct<key"),
    ],
)
def test_captions_that_are_no_strings_are_told_to_be_unread(
    tmp_path: Path, captions: pa.Array, kind: str
) -> None:
    (tmp_path / "data").mkdir()
    table = {"image": [PNG] * 2, "caption": captions, "boxes": [[1.5]] * 2, "nr": [1, 2]}
    pq.write_table(pa.table(table), tmp_path / "data" / "a.parquet")
    (line,) = overlooked(catalog_of(tmp_path))
    assert line.startswith("every row counts as without text, which may lie in 'caption' (" + kind)
    assert overlooked(catalog_of(tmp_path, columns={"text": "none"}), in_use=True) == []


def test_pictures_that_are_lists_of_numbers_are_told_by_the_name_they_have(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    numbers = pa.array([list(PNG)] * 2, pa.list_(pa.uint8()))
    table = pa.table({"image": numbers, "caption": ["a", "b"]})
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    (line,) = overlooked(catalog_of(tmp_path))
    assert "may lie in 'image' (list<element: uint8>)" in line


@pytest.mark.parametrize(
    ("member", "data"),
    [("prompt", b"a cat"), ("caption.txt", b"a cat"), ("json", b'{"legenda": "a cat"}')],
)
def test_texts_of_a_tar_under_a_name_that_says_nothing_are_told(
    tmp_path: Path, member: str, data: bytes
) -> None:
    (tmp_path / "data").mkdir()
    write_tar(tmp_path / "data" / "0.tar", [("a.png", PNG), (f"a.{member}", data)])
    (line,) = overlooked(catalog_of(tmp_path), in_use=True)
    assert ("'legenda'" if member == "json" else f"'{member}'") in line


def test_what_lies_in_a_zip_beside_the_pictures_that_rows_name_is_told(tmp_path: Path) -> None:
    put(tmp_path, ["rows.csv"], b"image,text\n0.png,\n1.png,x\n")
    with zipfile.ZipFile(tmp_path / "data" / "images.zip", "w") as packed:
        packed.mkdir("__MACOSX")
        for name in ("0.png", "1.png", "2.png", "__MACOSX/._0.png", "README.md"):
            packed.writestr(name, PNG)
        packed.writestr("0.txt", "a cat")
    assert overlooked(catalog_of(tmp_path)) == [
        "1 .png file (images.zip/2.png) is not used: no row names it",
        "1 .txt file (images.zip/0.txt) is not used",
    ]


def test_members_of_tars_that_belong_to_no_sample_are_counted_also_when_all_was_read_before(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    for number in range(2):
        lists = [("LIST", b"a"), (f"{number}/cat", PNG), (".hidden", b"x"), ("._0.png", b"x")]
        members = [(f"{number}.png", PNG), (f"{number}.txt", b"a cat"), *lists]
        path = write_tar(tmp_path / "data" / f"{number}.tar", members)
        with tarfile.open(path, "a") as tar:
            link = tarfile.TarInfo(f"{number}.json")
            link.type, link.linkname = tarfile.SYMTYPE, "../gone.json"
            tar.addfile(link)
    for _ in range(2):
        assert overlooked(catalog_of(tmp_path), in_use=True) == [
            "members of tars whose names have no suffix: 4 (0.tar/LIST, 0.tar/0/cat, …), not used",
            "links in tars that lead to no member before them: 2 (0.tar/0.json, 1.tar/1.json),"
            " not used",
        ]


def test_samples_that_a_dot_in_their_names_makes_one_are_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    days = [(f"2021.01.0{n}.{suffix}", PNG) for n in range(4) for suffix in ("png", "json")]
    views = [("1.left.png", PNG), ("1.right.png", PNG), ("1.txt", b"a cat")]
    write_tar(tmp_path / "data" / "0.tar", [*((n, d) for n, d in days if "png" in n), *views])
    lines = overlooked(catalog_of(tmp_path), in_use=True)
    assert (
        "pictures in tars that are one row with another, since a name counts up to its first dot: 3"
        " (2021.01.01.png, 2021.01.02.png, …), not used"
    ) in [line.replace("0.tar/", "") for line in lines]


def test_captions_of_images_that_coco_does_not_list_are_counted(tmp_path: Path) -> None:
    put(tmp_path, ["1.png"], PNG)
    told = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "annotations": [{"image_id": n, "caption": "a"} for n in (1, 2, 2, None)],
    }
    put(tmp_path, ["captions.json"], json.dumps(told).encode())
    assert overlooked(catalog_of(tmp_path), in_use=True) == [
        "captions of images that are not listed: 3 (captions.json: image_id 2, captions.json:"
        " image_id None, …), not used"
    ]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Pairs in Parquet, and captions beside them that Parquet's form does not read."""
    quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(34, 3, 2))
    put(tmp_path, ["captions.txt"], b"the row 035 is a cat\n")
    return quick_worlds.config(tmp_path)


def test_a_run_says_so_before_it_generates_and_in_its_summary(
    world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = "1 .txt file (captions.txt) is not used"
    caplog.set_level(logging.WARNING)
    _, summary = quick_worlds.run(world)
    assert any(said in record.message for record in caplog.records)
    (warning,) = [line for line in summary["warnings"] if said in line]
    assert warning.startswith("5 rows get a generated half")
    _, again = quick_worlds.run(world)
    assert not any(said in line for line in again["warnings"])


@pytest.mark.parametrize("command", ["init", "inspect"])
def test_the_commands_that_look_at_data_say_so(world: Path, command: str) -> None:
    words = {
        "init": ["init", str(world.parent / "data"), "-o", str(world.parent / "c.yaml")],
        "inspect": ["inspect", str(world)],
    }[command]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    assert "rag4dmc: 1 .txt file (captions.txt) is not used" in answer.stderr


class TestExternalWithoutPairs:
    @pytest.fixture
    def world(self, tmp_path: Path) -> Path:
        quick_worlds.write(tmp_path / "data" / "a.parquet", quick_worlds.rows(34, 1, 1))
        (tmp_path / "public").mkdir()
        rows = [{"image": f"/nowhere/{n}.jpg", "text": f"a cat {n}"} for n in range(40)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "public" / "rows.jsonl").write_text(lines)
        return quick_worlds.config(tmp_path, external=[{"name": "cc3m", "path": "public"}])

    def test_it_is_refused_with_the_reason(self, world: Path) -> None:
        said = r"external cc3m: none of its 40 rows .* image: outside the data's folder \(40\)"
        with pytest.raises(DatasetError, match=said):
            quick_worlds.run(world)
        answer = CliRunner().invoke(app, ["inspect", str(world)])
        assert answer.exit_code == 0
        assert "none of its 40 rows is a complete pair" in answer.stderr


def test_reasons_of_one_kind_are_one_unless_they_are_few() -> None:
    many = {f"no such file '{n}.png'": 1 for n in range(30)}
    assert by_kind(many | {"undecodable": 2}) == {"no such file": 30, "undecodable": 2}
    few = {"no such file 'it''s.png'": 1}
    assert by_kind(few) == few


def test_json_is_read_in_pieces_however_large(tmp_path: Path) -> None:
    from pipeline.dataset.forms.json_reader import JsonReader

    rows = [{"n": n, "text": "é" * (n % 50), "in": [1, {"a": None}]} for n in range(60_000)]
    data = b"\xef\xbb\xbf" + json.dumps({"a": 1.5, "rows": rows, "b": [1, 2]}).encode()
    reader = JsonReader(io.BytesIO(data), "x.json")
    found = {
        key: list(reader.array()) if reader.peek() == "[" else reader.value()
        for key in reader.entries()
    }
    assert found == {"a": 1.5, "rows": rows, "b": [1, 2]}
    with pytest.raises(DatasetError, match=r"x\.json is not JSON, or is cut"):
        reader = JsonReader(io.BytesIO(data[: len(data) // 2]), "x.json")
        for _ in reader.entries():
            reader.value()
