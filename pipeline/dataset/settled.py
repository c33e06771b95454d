"""The columns of a dataset as they stand by what was read of it so far.

JSON has more columns, and of wider types, the more of it is read (`pipeline.dataset.forms.rows`); the
column of a half stays the one that it was, and is found late where there was none.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from pipeline.dataset.columns import (
    NONE,
    ColumnSettings,
    guess_columns,
    resolve_columns,
    settle_columns,
)
from pipeline.dataset.forms.base import DatasetError, Source
from pipeline.dataset.forms.kinds import field_of
from pipeline.dataset.forms.pictures import Pictures
from pipeline.dataset.forms.rows import Columns, with_empty
from pipeline.dataset.guessing import guess_image
from pipeline.dataset.unified import Unified


class NoColumns(DatasetError):
    """A source that has no columns: there is no row."""


class Settled:
    """Which column holds what, and what makes the columns of all forms alike.

    Parameters
    ----------
    source
    settings
        The columns as they are set.
    images
        Where images that are named by their paths lie.

    Raises
    ------
    DatasetError
        The source has no columns, or not those that are set.
    """

    def __init__(self, source: Source, settings: ColumnSettings, images: Pictures) -> None:
        self._source = source
        self._settings = settings
        self._images = images
        self._grown: Columns | None = getattr(source, "columns", None)
        self._read = self._schema()
        if not self._read.names:
            raise NoColumns
        self._asked = guess_image(settings, source)
        self._unified = Unified(resolve_columns(self._asked, self._read), self._read, images)

    @property
    def unified(self) -> Unified:
        """What makes the columns alike, by all that was seen of them up to now."""
        read = self._schema()
        if read is not self._read and not read.equals(self._read, check_metadata=True):
            settled = settle_columns(self._asked, self._unified.columns, read)
            self._unified = Unified(settled, read, self._images)
        self._read = read
        return self._unified

    @property
    def to_read(self) -> list[str] | None:
        """The columns to read; None for all, those too that are not known yet."""
        all_of_them = self._grown is not None and self._settings.extra is None
        return None if all_of_them else self.unified.needed

    def learned(self, file: str | None = None) -> dict[str, int]:
        """The columns of a file, or of all, and their kinds, where they grow as files are read."""
        if self._grown is None:
            return {}
        return self._grown.together() if file is None else self._grown.of(file)

    def learn(self, file: str, columns: Mapping[str, int]) -> None:
        """Take in what was learned of a file another time; "" stands for all of them."""
        if self._grown is not None:
            self._grown.learn(file, columns)

    def again(self, asked: ColumnSettings) -> ColumnSettings:
        """The columns as they would be found now, with others asked for than are set."""
        return settle_columns(asked, self.unified.columns, self._source.schema())

    def check_read(self) -> None:
        """Look at the columns once all rows were read.

        Raises
        ------
        DatasetError
            No row has a column that is set; or a file has a half in a column of another name than
            the others, where that would pass through and the half be generated anew.
        """
        if self._grown is None:
            return
        resolve_columns(self._settings, self._source.schema())
        columns = self.unified.columns
        for role in ("image", "text"):
            held = getattr(columns, role)
            if held is None or getattr(self._settings, role) is not None:
                continue
            files = {name: self._grown.of(name) for name in self._grown.files()}
            beside = {c for kinds in files.values() if held in kinds for c in kinds}
            for name, kinds in files.items():
                fields = [field_of(c, k) for c, k in kinds.items() if k and c not in beside]
                other = getattr(guess_columns(pa.schema(fields)), role)
                if held not in kinds and other is not None:
                    raise DatasetError(
                        f"{name} has no column {held!r}, which holds the {role}s of other files,"
                        f" but {other!r}; give all files the same columns, or set columns.{role}"
                    )

    def _schema(self) -> pa.Schema:
        """The columns of the source, with those that are set and may come later in JSON."""
        schema, set_ = self._source.schema(), self._settings
        if not schema.names or self._grown is None:
            return schema
        named = [set_.id, set_.image, set_.text, *(set_.extra or ())]
        late = [n for n in dict.fromkeys(named) if n not in (None, NONE) and n not in schema.names]
        return with_empty(schema, late) if late else schema
