"""Rows of a report are read of the parts: of all what figures need, of those shown the rest."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.schema import completed_schema
from pipeline.report import completed_rows, gallery, write_report
from pipeline.report import page as page_module
from tests.pipeline.report.report_rows import SUMMARY, row
from tests.pipeline.report.test_report import embedded


def test_rows_are_read_back_from_the_parts(tmp_path):
    schema = completed_schema(text_is_list=False)
    for part in range(2):
        table = pa.Table.from_pylist([row(2 * part), row(2 * part + 1)], schema=schema)
        pq.write_table(table, tmp_path / f"part-{part:05d}.parquet", row_group_size=1)
    found = list(completed_rows(sorted(tmp_path.glob("part-*.parquet"))))
    assert [one["id"] for one in found] == [f"row-{n:05d}" for n in range(4)]
    stored = gallery.StoredRows()
    whole = [stored.read(one["stored"]) for one in found]
    assert [one["image"]["bytes"] for one in whole] == [row(n)["image"]["bytes"] for n in range(4)]
    assert [one["text"] for one in whole] == [row(n)["text"] for n in range(4)]


def test_rows_of_one_row_group_are_read_from_the_disk_once(tmp_path, monkeypatch):
    schema = completed_schema(text_is_list=False)
    table = pa.Table.from_pylist([row(n) for n in range(12)], schema=schema)
    pq.write_table(table, tmp_path / "part-000001.parquet", row_group_size=6)
    read = []
    read_row_group = pq.ParquetFile.read_row_group

    def counted(self, group, columns):
        read.append((group, "image" in columns))
        return read_row_group(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    found = completed_rows([tmp_path / "part-000001.parquet"])
    assert write_report(tmp_path / "page.html", found, SUMMARY)["cards"] == 12
    assert sorted(read) == [(0, False), (0, True), (1, False), (1, True)]


def test_of_rows_that_no_card_shows_pictures_texts_and_prompts_are_never_read(
    tmp_path, monkeypatch
):
    schema = completed_schema(text_is_list=False)
    lost = {**row(8), "id": "lost", "image": None}
    table = pa.Table.from_pylist([*(row(n) for n in range(40)), lost], schema=schema)
    pq.write_table(table, tmp_path / "part-000001.parquet", row_group_size=7)
    read = []

    class Counted(gallery.StoredRows):
        def read(self, place):
            read.append(place)
            return super().read(place)

    monkeypatch.setattr(page_module, "StoredRows", Counted)
    for one in completed_rows(parts := sorted(tmp_path.glob("part-*.parquet"))):
        assert one.keys() == {"id", "status", "missing", "reason", "completion", "stored"}
        made = one["completion"]
        assert not made or made.keys() == {n.split(".")[1] for n in page_module.FIGURED if "." in n}
        figures = {"valid", "reason", *gallery.PARTS}
        assert all(each.keys() == figures for each in (made or {}).get("candidates") or ())
    written = write_report(
        tmp_path / "page.html",
        completed_rows(parts),
        SUMMARY,
        sample=16,
    )
    # The same page comes of all rows as they are.
    write_report(tmp_path / "other.html", table.to_pylist(), SUMMARY, sample=16)
    assert (tmp_path / "page.html").read_text() == (tmp_path / "other.html").read_text()
    assert len(read) == written["cards"] < 41
    data = embedded((tmp_path / "page.html").read_text(encoding="utf-8"))
    shown = {card["id"]: "image" in card for card in data["cards"]}
    given = {one["id"]: one["image"] is not None for one in table.to_pylist()}
    assert shown == {card_id: given[card_id] for card_id in shown}
    assert set(shown.values()) == {True, False}
