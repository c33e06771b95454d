"""A Prefect server for the tests of a module that ask one what it was told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """It ends with the module: a server that nobody asks takes a twentieth of a core."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield
