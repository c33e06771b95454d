"""The environment of every test: one thread, nothing downloaded or reported home, Prefect still."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

# While libraries are imported and tests collected there is little to free and ever more to look through.
gc.disable()
# Tiny tensors gain nothing from threads, and lose much where other work wants the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# Its console handler would write to streams that tests have closed.
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
# One process of the tests does not wait for another's database.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-of-tests-")
atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def libraries_are_not_collected() -> Iterator[None]:
    """What stands when a module begins, a million objects of libraries, no collection looks through.

    A build ends with a collection, which would take longer than all else in a small one.
    """
    gc.enable()
    gc.collect()
    gc.freeze()
    yield
