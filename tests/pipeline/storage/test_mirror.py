"""A run whose folder is a URL: on moto's S3 server, cut off, and gone on with from elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.config.config import load_config
from pipeline.job import Job
from pipeline.storage.errors import ConfigError, RunFailed, RunLocked
from pipeline.storage.lease import Lease
from pipeline.storage.mirror import Mirror
from tests import quick_worlds as worlds
from tests.calls import LOG, calls, wait_for_calls

ROOT = Path(__file__).parents[3]


def objects(url: str) -> dict[str, str]:
    """ETags by name, but of the lock."""
    import fsspec

    fs = fsspec.filesystem("s3")
    fs.invalidate_cache()
    root = url.removeprefix("s3://")
    found = fs.find(root, detail=True)
    return {
        name.removeprefix(root): detail["ETag"] + str(detail["LastModified"])
        for name, detail in found.items()
        if "/lease/" not in name
    }


def world(folder: Path, **changes: Any) -> Path:
    worlds.write(folder / "data" / "a.parquet", worlds.rows(20, 10, 10))
    return worlds.config(folder, **changes)


def halves(job: Job) -> dict[str, tuple[Any, ...]]:
    return {
        row_id: (row["status"], row["text"], row["image"], row["note"])
        for row_id, row in worlds.completed(job).items()
    }


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Go to another machine, one with an empty cache or one that was there before."""

    def go(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machines" / name))

    go("first")
    return go


class TestRun:
    def test_the_url_holds_what_a_local_run_writes_and_anyone_can_read_it(
        self, bucket: str, tmp_path: Path, machines: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import datasets
        import fsspec
        import pyarrow.dataset as ds

        # Otherwise it takes the test's own server for the hub.
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        local, _ = worlds.run(world(tmp_path / "local"))
        config = world(tmp_path / "url", output=bucket, export=[{"format": "parquet"}])
        job, summary = worlds.run(config)
        assert halves(job) == halves(local)
        fs = fsspec.filesystem("s3")
        table = ds.dataset(summary["completed"].removeprefix("s3://"), filesystem=fs).to_table()
        assert table.num_rows == 40
        assert fs.exists(summary["report"]) and fs.exists(f"{bucket}/config.yaml")
        pattern = f"{summary['exports']['parquet']}/data/*.parquet"
        found = datasets.load_dataset(
            "parquet",
            data_files=pattern,
            split="train",
            cache_dir=str(tmp_path / "hf"),
            storage_options=dict(fsspec.config.conf["s3"]),
        )
        assert Counter(found["status"]) == {"observed": 20, "completed": 20}
        assert found[0]["image"].size == (32, 32)

    def test_with_nothing_new_another_machine_does_nothing_and_changes_no_object(
        self, bucket: str, tmp_path: Path, machines: Any
    ) -> None:
        config = world(tmp_path, output=bucket, export=[{"format": "parquet"}])
        worlds.run(config)
        before = objects(bucket)
        for machine in ("first", "second"):
            machines(machine)
            job, summary = worlds.run(config)
            assert summary["done_now"] == 0 and not summary["built"]
            assert objects(bucket) == before
        assert len(worlds.completed(job)) == 40

    def test_new_rows_are_done_from_another_machine_and_the_first_one_catches_up(
        self, bucket: str, tmp_path: Path, machines: Any
    ) -> None:
        config = world(tmp_path, output=bucket)
        worlds.run(config)
        machines("second")
        worlds.write(tmp_path / "data" / "b.parquet", [worlds.row(900, "text")])
        job, summary = worlds.run(config)
        assert summary["done_now"] == 1
        machines("first")
        job = Job(load_config(config))
        job.home.refresh(job.run_id)
        assert worlds.completed(job)["row 900"]["status"] == "completed"

    @pytest.mark.parametrize(
        "transfers", [pytest.param(n, marks=[pytest.mark.slow] * (n != 8)) for n in (2, 5, 8, 11)]
    )
    def test_cut_off_between_two_transfers_it_is_made_up_for_elsewhere(
        self,
        bucket: str,
        tmp_path: Path,
        machines: Any,
        monkeypatch: pytest.MonkeyPatch,
        transfers: int,
    ) -> None:
        config = world(tmp_path / "url", output=bucket, export=[{"format": "webdataset"}])
        made = Mirror.send
        count = 0

        def send(self: Mirror, names: Any) -> None:
            nonlocal count
            count += 1
            if count > transfers:
                raise ConnectionError("the line is down")
            made(self, names)

        with monkeypatch.context() as patch, pytest.raises(ConnectionError):
            patch.setattr(Mirror, "send", send)
            worlds.run(config)
        machines("second")
        job, summary = worlds.run(config)
        assert summary["outcomes"] == {"observed": 20, "completed": 20, "rejected": 0, "failed": 0}
        local, _ = worlds.run(world(tmp_path / "local"))
        assert halves(job) == halves(local)

    @pytest.mark.slow
    def test_killed_and_gone_on_with_elsewhere_no_finished_row_is_generated_again(
        self,
        bucket: str,
        s3: str,
        tmp_path: Path,
        machines: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv(LOG, str(tmp_path))
        slow = {"kind": "tests.quick_parts:QuickCaptioner", "row_seconds": 0.5}
        settings = {"shard_size": 4, "block_size": 4}
        config = world(tmp_path / "url", output=bucket, captioner=slow, run=settings)
        code = (
            "from pathlib import Path; from tests import quick_worlds as w;"
            f"w.run(Path({str(config)!r}))"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"FSSPEC_S3_ENDPOINT_URL": s3, "PYTHONPATH": str(ROOT)},
        )
        wait_for_calls(tmp_path, 6)
        process.send_signal(signal.SIGKILL)
        process.wait()
        machines("second")
        job, summary = worlds.run(config)
        assert summary["outcomes"] == {"observed": 20, "completed": 20, "rejected": 0, "failed": 0}
        times = Counter(row for _, row in calls(tmp_path))
        assert len(times) == 20
        # The second shard, which was under way; the first one stood on the URL.
        assert 0 < sum(count - 1 for count in times.values()) <= 4
        assert summary["recovered"] == 24


class TestLock:
    def test_a_run_on_another_machine_is_refused(
        self, bucket: str, tmp_path: Path, machines: Any
    ) -> None:
        config = world(tmp_path, output=bucket)
        with Job(load_config(config)).lock():
            machines("second")
            with pytest.raises(RunLocked, match="another run holds the lock"):
                worlds.run(config)
        assert worlds.run(config)[1]["rows"] == 40

    def test_a_worker_of_a_run_that_lost_the_lock_adds_nothing(
        self, bucket: str, tmp_path: Path, machines: Any
    ) -> None:
        import fsspec

        config = world(tmp_path, output=bucket)
        worlds.run(config)
        before = objects(bucket)
        mirror = Mirror(bucket, load_config(config).folder)
        lease = Lease(fsspec.filesystem("s3"), f"{bucket[5:]}/lease", "new", bucket)
        with lease, pytest.raises(RunFailed, match="does not hold the lock"):
            mirror.send_shard("part-000001.parquet", "shard-000001.json", "old", "usage-old.json")
        assert objects(bucket) == before


class TestExports:
    @pytest.mark.slow
    def test_a_version_is_whole_before_it_counts_and_the_last_one_stays(
        self, bucket: str, tmp_path: Path, machines: Any
    ) -> None:
        import fsspec

        fs = fsspec.filesystem("s3")
        config = world(tmp_path, output=bucket, export=[{"format": "imagefolder"}])
        urls = []
        for number in range(3):
            worlds.write(tmp_path / "data" / f"{number}.parquet", [worlds.row(900 + number)])
            urls.append(worlds.run(config)[1]["exports"]["imagefolder"])
        pointer = json.loads(fs.cat_file(f"{bucket}/exports/imagefolder/latest.json"))
        assert pointer["url"] == urls[-1]
        fs.invalidate_cache()
        assert [fs.exists(f"{url}/metadata.parquet") for url in urls] == [False, True, True]
        with fs.open(f"{urls[-1]}/metadata.parquet") as file:
            assert pq.read_metadata(file).num_rows == 43
        assert all(fs.exists(f"{urls[-1]}/{name}") for name in pointer["files"])


class TestConfig:
    def test_a_folder_with_other_files_is_not_taken_for_the_mirror(
        self, bucket: str, tmp_path: Path
    ) -> None:
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / "thesis.txt").write_text("mine")
        config = world(tmp_path, output=bucket, working_folder="work")
        with pytest.raises(ConfigError, match="holds other files"):
            worlds.run(config)
        assert (tmp_path / "work" / "thesis.txt").read_text() == "mine"

    def test_a_working_folder_without_a_url_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="working_folder: is for an output that is a URL"):
            load_config(world(tmp_path, working_folder="work"))

    def test_a_bucket_that_is_not_there_is_named_and_not_made(
        self, s3: str, tmp_path: Path, machines: Any
    ) -> None:
        import fsspec

        with pytest.raises(FileNotFoundError, match="bucket"):
            worlds.run(world(tmp_path, output="s3://misspelt/run"))
        assert not fsspec.filesystem("s3").exists("misspelt")

    def test_an_unknown_protocol_is_refused(self, tmp_path: Path, machines: Any) -> None:
        with pytest.raises(ConfigError, match="output: 'nosuch://a/b' can't be opened"):
            worlds.run(world(tmp_path, output="nosuch://a/b"))
