"""Rows that can't be read as they are: each keeps its place and says why, and no other row minds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.dataset.forms.base import DatasetError

# The column of a source's batch that says why rows can't be read; there where any can't.
FAULT = "__fault__"

# So many rows that can't be read are a file that is not what it seems, where they are a tenth.
_MANY = 16
_SHARE = 10


class FaultyRow(dict[str, Any]):
    """A row as far as it could be read, and why no further.

    Parameters
    ----------
    values
        What of its columns is known as it came.
    fault
        One of `reasons`.
    """

    def __init__(self, values: Mapping[str, Any], fault: str) -> None:
        super().__init__(values)
        self.fault = fault


class Faults:
    """Counts a file's rows that can't be read, as it is read from its beginning."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows = 0
        self._faulty = 0

    def count(self, row: object) -> None:
        """Take in a row.

        Raises
        ------
        DatasetError
            So many can't be read that the file can't be what it seems.
        """
        self._rows += 1
        if isinstance(row, FaultyRow):
            self._faulty += 1
            if self._faulty >= _MANY and self._faulty * _SHARE >= self._rows:
                raise DatasetError(
                    f"{self._name}, row {self._rows - 1}: {row.fault}; {self._faulty} of its first"
                    f" {self._rows} rows can't be read"
                )
