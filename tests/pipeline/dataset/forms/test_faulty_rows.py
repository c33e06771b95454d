"""A row that can't be read fails alone: it is counted and says why, and the others go through."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.dataset.catalog import Catalog
from pipeline.dataset.overlooked import overlooked
from tests import quick_worlds
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, read, write_parquet
from tests.pipeline.dataset.forms.test_tars import write_tar
from tests.quick_parts import COLOURS, picture

LATIN = b"caf\xe9"


def outcomes(folder: Path, **settings: Any) -> list[tuple[list[str], str | None]]:
    rows = read(open_dataset(folder, **settings))
    return [(r["text"], r["text_reason"]) for r in rows]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("1.txt", LATIN)], "a row that is not UTF-8 '1.txt'"),
        ([("1.json", LATIN)], "a row that is not UTF-8 '1.json'"),
        ([("1.json", b'{"text": ')], "a row that is not JSON"),
        ([("1.txt", b"a"), ("1.txt", b"b")], "a row with two values of one name '1.txt'"),
        ([("1.json", b'{"a": 1, "a": 2}')], "a row with two values of one name 'a'"),
    ],
)
def test_a_sample_of_a_tar(tmp_path: Path, members: list[tuple[str, bytes]], said: str) -> None:
    around = [("0.png", PNG), ("0.txt", b"x"), ("1.png", PNG), *members, ("2.png", PNG)]
    write_tar(tmp_path / "a.tar", [*around, ("2.txt", b"y")])
    first, faulty, last = read(open_dataset(tmp_path))
    assert (first["text"], last["text"]) == (["x"], ["y"])
    assert (faulty["id"], faulty["text"], faulty["image"]["bytes"]) == ("1", [], None)
    assert faulty["text_reason"].startswith(said)
    assert faulty["image_reason"] == faulty["text_reason"]


@pytest.mark.parametrize("metadata", [False, True])
@pytest.mark.parametrize(
    ("data", "said"),
    [(LATIN, "a row that is not UTF-8 '1.txt'"), (b"x" * (1 << 21), "a text of more than a meg")],
)
def test_a_text_beside_its_picture(tmp_path: Path, data: bytes, said: str, metadata: bool) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(PNG)
        (tmp_path / f"{number}.txt").write_bytes(b"a" if number != 1 else data)
    if metadata:
        lines = [json.dumps({"file_name": f"{n}.png", "n": n}) for n in range(3)]
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    (first, no), (text, why), (last, _) = outcomes(tmp_path)
    assert (first, no, text, last) == (["a"], None, [], ["a"])
    assert why is not None and why.startswith(said)


def test_a_link_that_leads_nowhere_beside_a_picture(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(PNG)
        (tmp_path / f"{number}.txt").write_bytes(b"a")
    (tmp_path / "1.txt").unlink()
    (tmp_path / "1.txt").symlink_to("gone.txt")
    assert outcomes(tmp_path)[1] == ([], "no such file '1.txt'")


def test_strings_of_parquet_that_are_not_utf8(tmp_path: Path) -> None:
    def strings(values: list[bytes]) -> pa.Array:
        raw = pa.array(values).cast(pa.binary())
        return pa.StringArray.from_buffers(len(raw), *raw.buffers()[1:])

    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3]), strings([b"a", b"b", LATIN]))
    columns = {"text": strings([b"fine", LATIN, b"x"]), "tags": lists, "image": [PNG] * 3}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    first, second, third = read(open_dataset(tmp_path))
    assert (first["text"], first["image"]["bytes"]) == (["fine"], PNG)
    assert second["text_reason"] == "a row that is not UTF-8 'text'"
    assert (second["image"]["bytes"], second["extra"]["tags"]) == (None, ["b"])
    assert (third["text_reason"], third["extra"]["tags"]) == (
        "a row that is not UTF-8 'tags'",
        None,
    )


@pytest.mark.parametrize(
    "images",
    [
        [{"id": 0, "file_name": "0.png"}, {"id": 1, "id ": 1, "file_name": "1.png"}, 7],
        [{"id": 0, "file_name": "0.png"}, {"id": 1, "file_name": "1.png"}, {"id": 2}],
    ],
)
def test_an_image_of_coco(tmp_path: Path, images: list[Any]) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(PNG)
    told = [{"image_id": n, "caption": c} for n, c in enumerate(["a", {"en": "b"}])]
    text = json.dumps({"images": images, "annotations": told})
    (tmp_path / "captions.json").write_text(text.replace('"id ": 1', '"id": 2'))
    rows = outcomes(tmp_path)
    assert rows[0] == (["a"], None)
    assert rows[1][0] == [] and rows[1][1] is not None and rows[1][1] != "no text in the row"
    assert len(rows) == 3


@pytest.mark.parametrize("id_of_it", [None, ""])
def test_a_row_without_an_id_is_known_by_what_it_holds(
    tmp_path: Path, id_of_it: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_parquet(
        tmp_path / "a.parquet", id=["a", id_of_it, id_of_it], text=["x", "y", "y"], n=[1, 2, 3]
    )
    caplog.set_level(logging.WARNING)
    ids = Catalog.scan(open_dataset(path), tmp_path / "runs").table["id"].to_pylist()
    assert ids[0] == "a"
    assert ids[1].endswith("-1") and ids[2] == ids[1][:-1] + "2"
    assert "2 rows have no id in 'id'" in caplog.text


def test_a_picture_that_no_metadata_names_goes_through_beside_ids(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(PNG)
    rows = [{"id": n, "file_name": f"{n}.png", "text": "a"} for n in range(2)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    catalog = Catalog.scan(open_dataset(tmp_path), tmp_path.with_name("runs"))
    assert catalog.counts() == {"complete": 2, "text": 1, "image": 0, "both": 0}
    assert set(catalog.table["id"].to_pylist()) > {"0", "1"}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """JSON Lines of 40 pairs, two rows without a text, and four that can't be read or have no id."""
    data = tmp_path / "data"
    data.mkdir()
    lines = []
    for number in range(42):
        colour = list(COLOURS)[number % len(COLOURS)]
        buffer = io.BytesIO()
        picture(colour, number).save(buffer, "PNG")
        (data / f"{number}.png").write_bytes(buffer.getvalue())
        text = None if number < 2 else f"a {colour} square with edge {number}"
        row = {"id": f"r{number}", "image": f"{number}.png", "text": text, "n": number}
        lines.append(json.dumps(row).encode())
    lines[10] = b'{"id": "r10", "image": "10.png", "text": "half an emoji \\ud83d", "n": 10}'
    lines[11] = b'{"id": "r11", "image": "11.png", "text":'
    lines[12] = lines[12].replace(b"edge", b"\xe9dge")
    lines[13] = lines[13].replace(b'"r13"', b"null")
    (data / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return quick_worlds.config(tmp_path)


def test_a_run_goes_through_with_the_others_and_says_of_each_what_it_was(world: Path) -> None:
    words = ["init", str(world.parent / "data"), "-o", str(world.parent / "c.yaml")]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    told = (world.parent / "c.yaml").read_text()
    assert "a row that is not UTF-8 'text' (1), a row that is not JSON 'Expecting value" in told
    job, summary = quick_worlds.run(world)
    assert any("3 rows have no id in 'id'" in line for line in summary["warnings"])
    rows = quick_worlds.completed(job)
    statuses = [row["status"] for row in rows.values()]
    assert {s: statuses.count(s) for s in set(statuses)} == {
        "observed": 37,
        "completed": 2,
        "rejected": 3,
    }
    assert {rows[name]["status"] for name in ("r0", "r1")} == {"completed"}
    half = rows["r10"]
    assert (half["status"], half["n"], half["text"], half["image"]) == ("rejected", 10, None, None)
    assert "a row that is not UTF-8 'text'" in half["reason"]
    (known,) = (row for row in rows.values() if row["n"] == 13)
    assert (known["status"], known["text"][-7:]) == ("observed", "edge 13")
    quick_worlds.run(world)
    assert quick_worlds.completed(job) == rows


NAMED = {
    "quotes within quotes": b'{"file_name": "1.png", "text": "a "red" hat"}',
    "single quotes": b"{'file_name': '1.png', 'text': 'a hat'}",
    "another encoding": b'{"file_name": "1.png", "text": "caf\xe9"}',
    "an escaped name": b'{"file_name": "\\u0031.png", "text": }',
}


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(PNG)
    return folder


@pytest.mark.parametrize("bad", NAMED.values(), ids=list(NAMED))
def test_the_picture_of_a_line_that_cant_be_read_is_no_row_by_itself(
    tmp_path: Path, bad: bytes
) -> None:
    lines = [json.dumps({"file_name": f"{n}.png", "text": "a"}).encode() for n in range(4)]
    lines[1] = bad
    (folder_of(tmp_path) / "metadata.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    dataset = open_dataset(tmp_path / "data")
    assert [file.name for file in dataset.files] == [
        "* (pictures without metadata)",
        "metadata.jsonl",
    ]
    catalog = Catalog.scan(dataset, tmp_path / "catalog")
    assert catalog.counts() == {"complete": 3, "text": 0, "image": 0, "both": 1}
    (told,) = overlooked(catalog)
    assert told.startswith("1 .png file (1.png) is not used")


def test_the_pictures_of_lines_with_other_fields_are_no_rows_by_themselves(tmp_path: Path) -> None:
    lines = ["text,file_name,n", "a,0.png,1", "a hat, red,1.png,2", "2.png", "a,3.png,3"]
    (folder_of(tmp_path) / "metadata.csv").write_text("\n".join(lines))
    catalog = Catalog.scan(open_dataset(tmp_path / "data"), tmp_path / "catalog")
    # The line of one field has its picture where the texts are: which row it is of, is not known.
    assert catalog.counts() == {"complete": 2, "text": 1, "image": 0, "both": 2}
    picture, told = overlooked(catalog)
    assert picture.startswith("1 .png file (1.png) is not used")
    assert told.startswith("rows that can't be read, which may be of pictures that no other row")
    assert "metadata.csv, row 2" in told


@pytest.mark.parametrize("column", ["file_name", "text"])
@pytest.mark.parametrize("beside", [False, True])
def test_metadata_of_parquet_with_strings_that_are_not_utf8(
    tmp_path: Path, column: str, beside: bool
) -> None:
    columns = {"file_name": [b"0.png", b"1.png", b"2.png", b"3.png"], "text": [b"a"] * 4}
    columns[column][1] = LATIN
    raw = {name: pa.array(values).cast(pa.binary()) for name, values in columns.items()}
    table = {n: pa.StringArray.from_buffers(4, *a.buffers()[1:]) for n, a in raw.items()}
    pq.write_table(pa.table(table), folder_of(tmp_path) / "metadata.parquet")
    for number in range(4 * beside):
        (tmp_path / f"data/{number}.txt").write_text("b")
    rows = read(open_dataset(tmp_path / "data"))
    named = [row for row in rows if row["text"] == ["a"]]
    assert len(named) == 3 and all(row["image"]["bytes"] == PNG for row in named)
    (faulty,) = [row for row in rows if row["text_reason"] == f"a row that is not UTF-8 '{column}'"]
    assert faulty["image_reason"] == faulty["text_reason"]


def test_lines_with_a_field_too_many_fail_alone_by_their_own_ids(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(PNG + bytes([number]))
    lines = [f"{n},{n % 6}.png,a hat{', red' * (n in (2, 6, 7))}" for n in range(8)]
    (tmp_path / "t.csv").write_text("\n".join(["id,image,caption", *lines, ""]))
    catalog = Catalog.scan(open_dataset(tmp_path / "t.csv"), tmp_path / "runs")
    assert catalog.table["id"].to_pylist() == [str(n) for n in range(8)]
    assert catalog.counts() == {"complete": 5, "text": 0, "image": 0, "both": 3}
