"""What file systems of fsspec differ in: folders, and what tells one state of a file from another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

# Where folders are but part of a name. To make one could make a bucket.
_WITHOUT_FOLDERS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss"}


def make_folders(fs: Any, places: Iterable[str]) -> None:
    """Make the folders that files are to lie in, where the file system has folders."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if not protocols & _WITHOUT_FOLDERS:
        for folder in sorted({place.rpartition("/")[0] for place in places}):
            fs.makedirs(folder, exist_ok=True)


def same(status: os.stat_result | None, detail: Mapping[str, Any] | None) -> bool:
    """Whether a local file is the object, by size and the time that `stamp` gave it."""
    if status is None or detail is None or status.st_size != detail["size"]:
        return False
    modified = _modified(detail)
    return modified is not None and status.st_mtime_ns == modified * 1_000_000_000


def stamp(path: Path, detail: Mapping[str, Any]) -> None:
    """Give a local file the modification time of its object."""
    modified = _modified(detail)
    if modified is not None:
        os.utime(path, ns=(modified * 1_000_000_000, modified * 1_000_000_000))


def _modified(detail: Mapping[str, Any]) -> int | None:
    """Whole seconds: listings of objects tell no finer."""
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = detail.get(name)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return int(value.timestamp())
        if isinstance(value, (int, float)):
            return int(value)
    return None
