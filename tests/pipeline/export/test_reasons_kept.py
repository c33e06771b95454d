"""Why a half was missing stands in every layout that has columns, an address in full."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq

from tests import quick_worlds

ADDRESS = f"https://example.org/it's a {'long ' * 100}way/1.png?size=9"


def test_the_address_of_a_missing_image_is_in_the_export(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = quick_worlds.rows(20, 0, 2)
    told = []
    for row in rows:
        place = ADDRESS
        if row["image"] is not None:
            place = f"{row['id']}.png"
            (data / place).write_bytes(row["image"]["bytes"])
        told.append({"id": row["id"], "image": place, "text": row["text"]})
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    formats = ("parquet", "webdataset", "imagefolder", "llava")
    job, summary = quick_worlds.run(
        quick_worlds.config(tmp_path, export=[{"format": name} for name in formats])
    )
    assert summary["outcomes"]["completed"] == 2
    exports = job.folder / "exports"
    with tarfile.open(exports / "webdataset" / "00000.tar") as tar:
        members = [tar.extractfile(m) for m in tar if m.name.endswith(".json")]
        records = [json.loads(member.read()) for member in members if member]
    found = {
        "parquet": pq.read_table(exports / "parquet" / "data").to_pylist(),
        "webdataset": records,
        "imagefolder": pq.read_table(exports / "imagefolder" / "metadata.parquet").to_pylist(),
        "llava": json.loads((exports / "llava" / "llava.json").read_text()),
    }
    for layout, written in found.items():
        reasons = [row["reason"] for row in written if row["status"] == "completed"]
        expected = f"only a URL '{ADDRESS.replace(chr(39), '%27')}'"
        assert reasons == [expected] * 2, layout
