"""Files that are there whole or not at all, however a run ends: written beside, synced, renamed."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kb.storage import sync_folder

# A folder's name that is one folder right below, not hidden, and never one above.
FOLDER_NAME = r"^\w[\w.-]*$"


def beside(path: Path) -> Path:
    """A place to write a file before it is moved to its own: hidden, beside it, another each time."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


@contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` once the block has ended well, and not before.

    Raises
    ------
    OSError
        With the path, also where what failed names none (a full disk).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = beside(path)
    try:
        yield scratch
        with scratch.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(scratch, path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    sync_folder(path.parent)


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file of some bytes, or of a text as UTF-8; see `writing_whole`."""
    with writing_whole(path) as scratch:
        scratch.write_bytes(data.encode() if isinstance(data, str) else data)


def write_changed(path: Path, text: str) -> None:
    """Write a text whole, unless the file holds it: what is as it was is not touched."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text)


def read_json(path: Path) -> Mapping[str, Any] | None:
    """A JSON file, or None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def clear_scratch(folder: Path) -> None:
    """Remove what a killed run left of files that were being written in its folder."""
    inner = ("catalog/*/.*.tmp", "check/*/.*.tmp", "check/*/*/.*.tmp")
    for pattern in (".*.tmp", "*/.*.tmp", *inner):
        for debris in folder.glob(pattern):
            debris.unlink(missing_ok=True)
