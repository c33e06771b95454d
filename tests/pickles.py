"""A pickle that tells that it was read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any


class _Telling:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def telling_pickle(path: Path) -> bytes:
    """A pickle that leaves a file at the path when it is read."""
    return pickle.dumps(_Telling(path))
