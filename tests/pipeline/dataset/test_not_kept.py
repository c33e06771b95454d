"""What lies within the files that are read and is not kept is named: captions, samples, fields."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.overlooked import overlooked
from tests.pipeline.dataset.forms.small_files import PNG
from tests.pipeline.dataset.forms.test_tars import write_tar
from tests.pipeline.dataset.test_overlooked import catalog_of, put


@pytest.mark.parametrize("packed", [True, False])
def test_captions_and_samples_that_a_shard_of_img2dataset_does_not_tell_are_counted(
    tmp_path: Path, packed: bool
) -> None:
    keys = [f"00000000{n}" for n in range(4)]
    listed = {"key": keys[:3], "status": ["success"] * 3, "caption": ["a", None, ""]}
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table(listed), tmp_path / "data" / "00000.parquet")
    members = [
        (f"{key}{end}", data) for key in keys for end, data in ((".jpg", PNG), (".txt", b"x"))
    ]
    if packed:
        write_tar(tmp_path / "data" / "00000.tar", members)
    else:
        for name, data in members:
            put(tmp_path, [f"00000/{name}"], data)
    told = overlooked(catalog_of(tmp_path, format="img2dataset"))
    where = "" if packed else "00000/"
    beside = f"{where}{keys[1]}.txt, {where}{keys[2]}.txt"
    assert f"captions beside images whose rows have none: 2 ({beside}), not used" in told
    assert any(keys[3] in line for line in told)


def test_captions_of_another_shape_are_named_with_their_number(tmp_path: Path) -> None:
    captions = [
        "a hat",
        ["a hat", "red"],
        [["a"]],
        {"en": "a hat"},
        ["a hat", True],
        [{"raw": "a"}],
    ]
    put(tmp_path, [f"{n}.png" for n in range(6)], PNG)
    rows = [{"image": f"{n}.png", "captions": text} for n, text in enumerate(captions)]
    put(tmp_path, ["rows.jsonl"], "".join(json.dumps(row) + "\n" for row in rows).encode())
    (line,) = overlooked(catalog_of(tmp_path))
    assert line.startswith("rows whose 'captions' is neither a text nor a list of texts")
    assert "lists within lists: 4;" in line


def test_fields_of_an_image_that_are_not_kept_are_named(tmp_path: Path) -> None:
    image = {"bytes": PNG, "path": None, "width": 8, "alt": "a hat"}
    (tmp_path / "data").mkdir()
    table = pa.table({"id": ["1"], "image": [image], "text": ["x"]})
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    assert overlooked(catalog_of(tmp_path)) == [
        "fields of 'image' beside its bytes and its path are not kept: 'width', 'alt'; write them as"
        " columns"
    ]
