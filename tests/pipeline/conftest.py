"""A finished run to change, a completed dataset, and an S3 server."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from tests import quick_worlds
from tests.calls import LOG
from tests.pipeline.export.completed_rows import write_completed
from tests.quick_worlds import FinishedRun


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder and the given rows of the run that `finished` copies."""
    given = quick_worlds.rows(40, 12, 8, 2)
    folder = tmp_path_factory.mktemp("finished") / "w"
    quick_worlds.write(folder / "data" / "a.parquet", given)
    # The captions of one row are all blank.
    blank = next(each["id"] for each in given if each["image"] and each["text"] is None)
    captioner = {"kind": "tests.quick_parts:QuickCaptioner", "blank": blank}
    quick_worlds.run(quick_worlds.config(folder, captioner=captioner))
    return folder, given


@pytest.fixture
def finished(
    finished_once: tuple[Path, list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> FinishedRun:
    """Forty whole rows, twelve texts and eight images made but for one, and two rows of nothing."""
    template, given = finished_once
    folder = shutil.copytree(template, tmp_path / "w")
    monkeypatch.setenv(LOG, str(folder))
    return FinishedRun(folder / "dmc.yaml", copy.deepcopy(given))


@pytest.fixture(scope="session")
def completed(tmp_path_factory: pytest.TempPathFactory) -> ds.Dataset:
    """See `tests.pipeline.export.completed_rows`."""
    return write_completed(tmp_path_factory.mktemp("run") / "completed")


@pytest.fixture
def bucket(s3: str, request: pytest.FixtureRequest) -> str:
    """A place of the test's own on the server."""
    return f"s3://bucket/{abs(hash(request.node.nodeid)):x}"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of moto's S3 server, to which `s3://` of fsspec leads."""
    pytest.importorskip("s3fs")
    moto_server = pytest.importorskip("moto.server")
    import fsspec

    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": url})
        fsspec.filesystem("s3").makedirs("bucket", exist_ok=True)
        yield url
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()
