"""Image files that were tried before and have not changed since: they are not read again.

A table of rows is read anew when any image that it may name has changed, for that is all that its
version tells; what was found in the other images still holds.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.dataset.dataset import Dataset
from pipeline.dataset.images import CRASHED, TOO_LONG

# What was found, by the columns of `pipeline.dataset.findings.FILE_SCHEMA`.
COLUMNS = ("image", "image_reason", "image_path", "image_version", "described")
# Faults of the moment rather than of the image.
_PASSING = frozenset({TOO_LONG, CRASHED, "out of memory"})


class KnownImages:
    """What the last reading of a file found in the images that its rows name.

    Parameters
    ----------
    dataset : Dataset
    found : pyarrow.Table or None
        `COLUMNS` of the last reading, under the same settings.
    """

    def __init__(self, dataset: Dataset, found: pa.Table | None) -> None:
        self._dataset = dataset
        self._columns = {} if found is None else {n: found[n].combine_chunks() for n in COLUMNS}
        paths = self._columns["image_path"].to_pylist() if found is not None else ()
        self._rows = {path: row for row, path in enumerate(paths) if path is not None}
        self._asked: dict[str, str] = {}

    def holds(self, path: str) -> bool:
        """Whether an image is as it was; one that is not will be read next."""
        version = self._dataset.image_version(path)
        if version is None:
            return False
        if path in self._rows and self._value("image_version", path) == version:
            return True
        self._asked[path] = version
        return False

    def finding(self, path: str) -> tuple[str | None, str | None, str | None]:
        """The digest, the fault and the version of an image that is held."""
        digest, fault, version = (
            self._value(name, path) for name in ("image", "image_reason", "image_version")
        )
        return digest.hex() if digest else None, fault, version

    def is_described(self, path: str) -> bool:
        """Whether the file of an image that is held was found to hold a caption."""
        return bool(self._value("described", path))

    def version_read(self, path: str | None, fault: str | None) -> str | None:
        """The version under which an image that was just read can be known from now on."""
        version = self._asked.pop(path, None) if path is not None else None
        return None if fault in _PASSING else version

    def _value(self, column: str, path: str) -> Any:
        return self._columns[column][self._rows[path]].as_py()
