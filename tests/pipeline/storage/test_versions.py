"""Exports on a URL: what stood in the version before is not sent again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.storage.versions import ExportVersions


def test_only_what_is_new_is_sent_and_a_version_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = fsspec.filesystem("memory")
    sent: list[str] = []

    def put(sources: list[str], targets: list[str], **_: Any) -> None:
        for source, target in zip(sources, targets, strict=True):
            sent.append(Path(source).name)
            fs.pipe_file(target, Path(source).read_bytes())

    monkeypatch.setattr(fs, "put", put)
    versions = ExportVersions(fs, "/bucket/exports", "memory://bucket/exports")
    before, after = tmp_path / "before", tmp_path / "after"
    for folder in (before, after):
        folder.mkdir()
    (before / "0.tar").write_bytes(b"first")
    (before / "1.tar").write_bytes(b"other")
    versions.send(before, "webdataset", "r1")
    assert sent == ["0.tar", "1.tar"]
    # One of the same size is another, one that was only renamed is not.
    os.link(before / "1.tar", after / "0.tar")
    (after / "1.tar").write_bytes(b"newer")
    url = versions.send(after, "webdataset", "r2")
    assert sent[2:] == ["1.tar"]
    place = url.removeprefix("memory:/")
    assert fs.cat_file(f"{place}/0.tar") == b"other" and fs.cat_file(f"{place}/1.tar") == b"newer"
