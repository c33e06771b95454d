"""Tiny checkpoints and a server for the runs of these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.generators import tiny_captioners, tiny_sdxl
from tests.generators.server import Server


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folder = tmp_path_factory.mktemp("models")

    def make(name: str) -> str:
        path = folder / name
        if not path.exists():
            if name == "blip2":
                tiny_captioners.blip2(path, "opt")
            elif name == "llava":
                tiny_captioners.llava(path)
            elif name == "sdxl":
                tiny_sdxl.sdxl(path)
            else:
                tiny_sdxl.ip_adapter(path, Path(make("sdxl")))
        return str(path)

    return make


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running
