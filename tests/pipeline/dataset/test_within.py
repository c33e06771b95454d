"""Columns within others are named by paths, and what no half is made of stays in a column of its own."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.catalog import Catalog
from pipeline.dataset.dataset import DatasetError
from pipeline.dataset.overlooked import overlooked
from tests import quick_worlds
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, read

TEXTS = [{"en": "a hat", "de": "ein Hut"}, {"en": None, "de": "eine Mütze"}, None]
LISTS = [[{"raw": "a hat"}, {"raw": "a cap"}], [], None]


def write(folder: Path, form: str, **columns: list[Any]) -> Path:
    """A dataset of rows with pictures in a form."""
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    for number in range(len(rows)):
        (folder / f"{number}.png").write_bytes(PNG)
    named = [{"file_name": f"{n}.png", "id": str(n), **row} for n, row in enumerate(rows)]
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(named), folder / "rows.parquet")
    elif form == "metadata.parquet":
        pq.write_table(pa.Table.from_pylist(named), folder / form)
    elif form == "tar":
        with tarfile.open(folder / "rows.tar", "w") as tar:
            for number, row in enumerate(rows):
                told = json.dumps({"id": str(number), **row}).encode()
                for name, data in ((f"{number}.png", PNG), (f"{number}.json", told)):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    else:
        (folder / form).write_text("".join(json.dumps(row) + "\n" for row in named))
    return folder


FORMS = ["rows.jsonl", "metadata.jsonl", "parquet", "metadata.parquet", "tar"]


@pytest.mark.parametrize("form", FORMS)
def test_a_language_is_chosen_by_its_path_and_all_are_kept(tmp_path: Path, form: str) -> None:
    dataset = open_dataset(write(tmp_path, form, caption=TEXTS), columns={"text": "caption.en"})
    rows = read(dataset)
    assert [row["text"] for row in rows] == [["a hat"], [], []]
    assert not dataset.text_is_list
    kept = [row["extra"]["caption"] for row in rows]
    assert [json.loads(k) if isinstance(k, str) else k for k in kept] == TEXTS


@pytest.mark.parametrize("form", FORMS)
def test_a_path_through_lists_gives_that_field_of_every_item(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path, form, sentences=LISTS)
    dataset = open_dataset(folder, columns={"text": "sentences.raw"})
    rows = read(dataset)
    assert [row["text"] for row in rows] == [["a hat", "a cap"], [], []]
    assert dataset.text_is_list
    file = dataset.files[-1]
    assert dataset.fetch(file, [2, 0])["text"].to_pylist() == [[], ["a hat", "a cap"]]


@pytest.mark.parametrize("form", ["rows.jsonl", "parquet"])
def test_ids_and_images_may_be_within_others(tmp_path: Path, form: str) -> None:
    meta = [{"uid": "first", "picture": {"place": "0.png"}}]
    columns = {"id": "meta.uid", "image": "meta.picture.place"}
    (row,) = read(open_dataset(write(tmp_path, form, meta=meta, text=["a"]), columns=columns))
    assert (row["id"], row["image"]["bytes"]) == ("first", PNG)


@pytest.mark.parametrize("form", ["rows.jsonl", "parquet"])
def test_a_path_that_leads_nowhere_is_named(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path, form, caption=TEXTS)
    with pytest.raises(DatasetError, match=r"columns\.text: there is no column 'caption\.fr'"):
        open_dataset(folder, columns={"text": "caption.fr"}).source.schema()
        Catalog.scan(open_dataset(folder, columns={"text": "caption.fr"}), tmp_path / "found")


def test_what_is_no_text_among_texts_passes_through(tmp_path: Path) -> None:
    texts = ["a hat", {"en": "a cap"}, [{"raw": "a cap"}]]
    rows = read(open_dataset(write(tmp_path, "rows.jsonl", text=texts)))
    assert [row["text"] for row in rows] == [["a hat"], [], []]
    assert [json.loads(row["extra"]["source_text"]) for row in rows] == texts


@pytest.mark.parametrize("form", ["rows.jsonl", "parquet"])
def test_captions_within_objects_are_told_with_how_to_name_them(tmp_path: Path, form: str) -> None:
    catalog = Catalog.scan(open_dataset(write(tmp_path, form, caption=TEXTS)), tmp_path / "found")
    (told,) = (line for line in overlooked(catalog) if "columns.text" in line)
    assert told.endswith("(columns.text: caption.de; there is caption.en too)")


def _maps(folder: Path, form: str, texts: list[Any]) -> Path:
    """Captions in a map by language, whose type knows none of the keys."""
    kind = pa.map_(pa.string(), pa.string())
    maps = pa.array([text and list(text.items()) for text in texts], kind)
    table = pa.table({"id": ["0", "1", "2"], "image": [PNG] * 3, "caption": maps})
    if form == "arrow":
        with pa.ipc.new_file(str(folder / "rows.arrow"), table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, folder / "rows.parquet")
    return folder


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_value_of_a_map_is_chosen_by_its_key_and_all_are_kept(tmp_path: Path, form: str) -> None:
    folder = _maps(tmp_path, form, TEXTS)
    dataset = open_dataset(folder, columns={"text": "caption.de"})
    assert [row["text"] for row in read(dataset)] == [["ein Hut"], ["eine Mütze"], []]
    held = [{e["key"]: e["value"] for e in row["extra"]["caption"] or ()} for row in read(dataset)]
    assert held == [TEXTS[0], TEXTS[1], {}]
    assert dataset.fetch(dataset.files[0], [2, 1])["text"].to_pylist() == [[], ["eine Mütze"]]
    told = overlooked(Catalog.scan(open_dataset(folder), tmp_path / "found"))
    assert any("columns.text: caption.de; there is caption.en too" in line for line in told)


@pytest.mark.parametrize("form", FORMS)
def test_a_key_may_hold_a_dot_and_a_number_names_an_item(tmp_path: Path, form: str) -> None:
    said = [[{"from": "human", "value": "?"}, {"from": "gpt", "value": f"hat {n}"}] for n in (0, 1)]
    meta = [{"caption.en": "a"}, {"caption.en": "b"}]
    folder = write(tmp_path, form, said=[*said, []], meta=[*meta, None])
    for path, texts in (("said.1.value", ["hat 0", "hat 1"]), ("meta.caption.en", ["a", "b"])):
        rows = read(open_dataset(folder, columns={"text": path}))
        assert [row["text"] for row in rows] == [[texts[0]], [texts[1]], []]


@pytest.mark.parametrize("form", ["rows.jsonl", "parquet"])
def test_lists_within_lists_are_told_with_how_to_name_one(tmp_path: Path, form: str) -> None:
    (tmp_path / "data").mkdir()
    texts = [[["a", "b"], ["c"]], [["d"], []]]
    folder = write(tmp_path / "data", form, captions=texts)
    told = overlooked(Catalog.scan(open_dataset(folder), tmp_path / "found"))
    assert any("(columns.text: captions.0; there is captions.1 too)" in line for line in told)
    rows = read(open_dataset(folder, columns={"text": "captions.0"}))
    assert [row["text"] for row in rows] == [["a", "b"], ["d"]]


def test_a_path_through_a_list_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, "rows.jsonl", sentences=[[{"raw": "a hat"}], [{"raw": "a cap"}]])
    with pytest.raises(DatasetError, match=r"columns\.text: there is no column 'sentences\.row'"):
        Catalog.scan(open_dataset(folder, columns={"text": "sentences.row"}), tmp_path / "found")


def test_a_run_completes_and_exports_texts_of_a_path(tmp_path: Path) -> None:
    given = quick_worlds.rows(20, 4, 0)
    rows = [
        {
            "id": row["id"],
            "image": row["image"],
            "caption": {"en": row["text"], "de": f"Bild {row['id']}"},
        }
        for row in given
    ]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "a.parquet")
    dataset = {"path": "data", "columns": {"text": "caption.en"}}
    job, _ = quick_worlds.run(
        quick_worlds.config(tmp_path, dataset=dataset, export=[{"format": "parquet"}])
    )
    for found in (
        quick_worlds.completed(job),
        {r["id"]: r for r in pq.read_table(job.folder / "exports/parquet/data").to_pylist()},
    ):
        for row in rows:
            made = found[row["id"]]
            assert made["caption"] == row["caption"]
            if row["caption"]["en"] is None:
                assert made["status"] == "completed" and made["text"]
            else:
                assert (made["status"], made["text"]) == ("observed", row["caption"]["en"])
