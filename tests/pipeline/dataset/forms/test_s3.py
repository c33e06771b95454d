"""Every form on a real S3 protocol: moto's server, s3fs as the client."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dataset.dataset import Dataset, DatasetSettings
from tests.pipeline.dataset.forms.form_writers import WRITERS, make_rows
from tests.pipeline.dataset.forms.small_files import read

# The other forms are read as some of these are; their own tests read them from the disk.
FAST = ("parquet of paths", "jsonl", "imagefolder", "webdataset")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FAST)) for n in WRITERS]
)
def test_rows_come_out_as_they_went_in(bucket: str, tmp_path: Path, name: str) -> None:
    import fsspec

    write, form, _ = WRITERS[name]
    rows = make_rows(form, 12)
    write(rows, tmp_path)
    fs = fsspec.filesystem("s3")
    fs.put(f"{tmp_path}/", f"{bucket}/", recursive=True)
    dataset = Dataset.open(DatasetSettings(path=bucket), Path("/"))
    assert dataset.format == form
    found = read(dataset)
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [row["image"]["bytes"] for row in found] == [row["image"] for row in rows]
    file = dataset.files[-1]
    last = [r for b in dataset.batches(file) for r in b.to_pylist()][-1:]
    assert dataset.fetch(file, [r["position"] for r in last]).to_pylist() == last


def test_a_changed_object_is_a_new_version(bucket: str) -> None:
    import fsspec

    fs = fsspec.filesystem("s3")
    settings = DatasetSettings(path=bucket)
    versions = []
    for text in ("a", "a", "b"):
        fs.pipe(f"{bucket}/rows.csv", f"id,text\n1,{text}\n".encode())
        fs.invalidate_cache()
        versions.append(Dataset.open(settings, Path("/")).files[0].version)
    assert versions[0] == versions[1] != versions[2]
