"""Images in files beside the rows: found, kept within their folder, and seen to change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.dataset.forms.reasons import (
    EMPTY_FILE,
    EMPTY_IMAGE,
    NO_FILE,
    NO_IMAGE,
    NO_TEXTS,
    NOT_A_FILE,
    NOT_ALLOWED,
    ONLY_URL,
    OUTSIDE,
    about,
    kind_of,
)
from tests.pipeline.dataset.forms.small_files import (
    PNG,
    open_dataset,
    read,
    write_jsonl,
    write_parquet,
)


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
            ("../secret.png", OUTSIDE),
            ("../nothing.png", OUTSIDE),
            ("../data-too/a.png", OUTSIDE),
            ("deep/../../secret.png", OUTSIDE),
            ("link.png", OUTSIDE),
            ("out/secret.png", OUTSIDE),
            ("/etc/hostname", OUTSIDE),
            ("/proc/self/environ", OUTSIDE),
            ("missing.png", NO_FILE),
            ("deep/a.png/b.png", NO_FILE),
            ("x" * 5000 + ".png", NO_FILE),
            ("nul\0.png", NO_FILE),
            ("round.png", NOT_ALLOWED),
            ("pipe.png", NOT_A_FILE),
            ("deep", NOT_A_FILE),
            ("empty.png", EMPTY_FILE),
            ("", NO_IMAGE),
            ("https://example.com/a.png", ONLY_URL),
            ("file:///etc/hostname", ONLY_URL),
            (None, NO_IMAGE),
        ],
    )
    def test_paths_stay_within_the_folder(
        self, folder: Path, path: str | None, reason: str | None
    ) -> None:
        path = path and path.replace("{folder}", str(folder))
        write_jsonl(folder / "rows.jsonl", [{"text": "x", "image": path}])
        row = read(open_dataset(folder))[0]
        assert (row["image_reason"] and kind_of(row["image_reason"])) == reason
        assert row["image"]["bytes"] == (None if reason else PNG)

    def test_a_struct_with_a_path_alone_is_read(self, folder: Path) -> None:
        cells = [{"bytes": None, "path": "deep/a.png"}, {"bytes": b"", "path": None}]
        write_parquet(folder / "a.parquet", image=cells, text=["x", "y"])
        rows = read(open_dataset(folder))
        assert [r["image"]["bytes"] for r in rows] == [PNG, None]
        assert [r["image_reason"] for r in rows] == [None, EMPTY_IMAGE]

    def test_image_root_is_where_paths_are_relative_to(self, folder: Path) -> None:
        other = folder.parent / "rows"
        other.mkdir()
        write_jsonl(other / "rows.jsonl", [{"text": "x", "image": "a.png"}])
        row = read(open_dataset(other, image_root=str(folder / "deep")))[0]
        assert row["image"]["bytes"] == PNG

    def test_an_image_that_arrives_makes_its_file_new(self, folder: Path) -> None:
        write_jsonl(folder / "rows.jsonl", [{"text": "x", "image": "late.png"}])
        before = open_dataset(folder).files[0].version
        assert open_dataset(folder).files[0].version == before
        (folder / "late.png").write_bytes(PNG)
        assert open_dataset(folder).files[0].version != before


class TestImageFolder:
    def test_images_without_metadata_are_rows_without_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        (tmp_path / "b.png").write_bytes(PNG)
        write_jsonl(tmp_path / "metadata.jsonl", [{"file_name": "b.png", "text": "b"}])
        rows = read(open_dataset(tmp_path))
        assert [(r["image"]["path"], r["text"]) for r in rows] == [("a.png", []), ("b.png", ["b"])]

    def test_a_folder_of_images_alone(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        for name in ("b.png", "a.PNG", "deep/c.jpg"):
            (tmp_path / name).write_bytes(PNG)
        dataset = open_dataset(tmp_path)
        rows = read(dataset)
        assert [r["image"]["path"] for r in rows] == ["a.PNG", "b.png", "deep/c.jpg"]
        assert {r["text_reason"] for r in rows} == {NO_TEXTS}
        assert dataset.fetch(dataset.files[0], [1])["image"][0].as_py()["path"] == "b.png"

    def test_a_name_that_starts_with_an_underscore_is_a_row_as_well(self, tmp_path: Path) -> None:
        names = ["_DSC1.jpg", "__b.jpg", "_unsorted/_c.jpg", "a.jpg"]
        beside = ["._a.jpg", ".cache/d.jpg", "_temporary/0/e.jpg", "__MACOSX/f.jpg"]
        for name in names + beside:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(PNG)
        rows = read(open_dataset(tmp_path))
        assert sorted(r["image"]["path"] for r in rows) == names

    def test_metadata_paths_cannot_leave_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "secret.png").write_bytes(PNG)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.png").write_bytes(PNG)
        write_jsonl(
            tmp_path / "data" / "metadata.jsonl", [{"file_name": "../secret.png", "text": "x"}]
        )
        rows = read(open_dataset(tmp_path / "data"))
        assert {r["image_reason"] for r in rows} == {None, about(OUTSIDE, "../secret.png")}

    def test_an_image_that_changes_makes_its_files_new(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        write_jsonl(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "text": "x"}])
        before = {f.name: f.version for f in open_dataset(tmp_path).files}
        (tmp_path / "a.png").write_bytes(PNG + b" ")
        after = {f.name: f.version for f in open_dataset(tmp_path).files}
        assert before.keys() == after.keys()
        assert before["metadata.jsonl"] != after["metadata.jsonl"]


def test_one_index_of_the_pictures_names_serves_who_lists_and_who_reads_them(
    tmp_path: Path,
) -> None:
    for folder in ("data", "more"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(PNG)
    write_jsonl(tmp_path / "data" / "metadata.jsonl", [{"file_name": "1.PNG", "text": "a hat"}])
    dataset = open_dataset(tmp_path / "data")
    assert [row["image"]["bytes"] for row in read(dataset)] == [PNG]
    assert dataset.images is dataset.source.pictures  # type: ignore[attr-defined]
    elsewhere = open_dataset(tmp_path / "data", image_root=str(tmp_path / "more"))
    assert elsewhere.images.root.path == str(tmp_path / "more")
