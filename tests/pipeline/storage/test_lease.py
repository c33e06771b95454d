"""The lock of a run whose folder is a URL: of many that want it one has it, as long as it lives."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from pipeline.storage.errors import RunFailed, RunLocked
from pipeline.storage.lease import Lease


def lease(url: str, owner: str, seconds: float = 300.0) -> Lease:
    import fsspec

    return Lease(fsspec.filesystem("s3"), f"{url[5:]}/lease", owner, url, seconds)


def test_of_many_that_want_it_at_once_one_gets_it(bucket: str) -> None:
    got: list[str] = []
    refused: list[str] = []
    everyone_tried = threading.Barrier(8)

    def take(owner: str) -> None:
        try:
            with lease(bucket, owner):
                got.append(owner)
                everyone_tried.wait(60)
        except RunLocked:
            refused.append(owner)
            everyone_tried.wait(60)

    threads = [threading.Thread(target=take, args=(f"run {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and len(refused) == 7


def test_a_lease_that_was_not_renewed_is_taken_and_its_holder_told(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = lease(bucket, "old", seconds=2.0)
    monkeypatch.setattr(Lease, "_renew", lambda self: None)
    with old:
        with pytest.raises(RunLocked):
            lease(bucket, "new").__enter__()
        time.sleep(2.1)
        with lease(bucket, "new") as new:
            assert new.holder() == "new"
            new.check()
            with pytest.raises(RunFailed, match="the lock was lost"):
                old.check()
    assert new.holder() is None


def test_the_lease_of_a_dead_process_of_this_machine_is_stale(bucket: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = lease(bucket, "dead")
    dead.__enter__()
    dead._stop.set()
    place = f"{bucket[5:]}/lease/000000000001.json"
    told = json.loads(dead._fs.cat_file(place))
    dead._fs.pipe_file(place, json.dumps(told | {"pid": process.pid}).encode())
    with lease(bucket, "new") as new:
        assert new.holder() == "new"
