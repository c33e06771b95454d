"""Every form on a real S3 protocol: moto's server, s3fs as the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.dataset import Dataset, DatasetSettings
from tests.pipeline.sources.form_writers import WRITERS, make_rows, read

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    import fsspec

    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


@pytest.mark.parametrize("name", WRITERS)
def test_rows_come_out_as_they_went_in(bucket: str, tmp_path: Path, name: str) -> None:
    import fsspec

    write, form, _ = WRITERS[name]
    rows = make_rows(form, 30)
    write(rows, tmp_path)
    fs = fsspec.filesystem("s3")
    place = f"{bucket}/{name.replace(' ', '-')}"
    fs.put(f"{tmp_path}/", f"{place}/", recursive=True)
    dataset = Dataset.open(DatasetSettings(path=place), Path("/"))
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
    settings = DatasetSettings(path=f"{bucket}/changing")
    versions = []
    for text in ("a", "a", "b"):
        fs.pipe("bucket/changing/rows.csv", f"id,text\n1,{text}\n".encode())
        fs.invalidate_cache()
        versions.append(Dataset.open(settings, Path("/")).files[0].version)
    assert versions[0] == versions[1] != versions[2]
