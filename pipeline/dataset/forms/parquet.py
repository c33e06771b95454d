"""Parquet files: image bytes, paths, or Hugging Face's struct of both, in any column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.forms.base import (
    BATCH_BYTES,
    BATCH_ROWS,
    Batch,
    DatasetError,
    SourceFile,
    plain,
)
from pipeline.dataset.forms.readings import Readings
from pipeline.dataset.forms.root import Root
from pipeline.dataset.forms.widening import check_drift, common_schema, kept

_FOOTERS = 64
# Bytes of a column that are read ahead; without, a row group's whole column is held at once.
_AHEAD = 8 << 20
# Row groups of more bytes than this, uncompressed, are too large to be begun again and again.
_LARGE_GROUP = 1 << 30


class ParquetSource:
    """Every Parquet file below a root."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._footers: dict[tuple[str, str], pq.FileMetaData] = {}
        self._schema: pa.Schema | None = None
        self._readings = Readings()

    def names(self) -> list[str]:
        names = [n for n in self.root.names() if n.lower().endswith((".parquet", ".pq"))]
        return self.root.filled(names)

    def files(self) -> list[SourceFile]:
        return [SourceFile(n, self.root.url(n), self.root.version(n)) for n in self.names()]

    def schema(self) -> pa.Schema:
        if self._schema is None:
            self._schema = common_schema(
                self.names() or [self._first()], self._schema_of, self.root.local
            )
        return self._schema

    def _schema_of(self, name: str) -> pa.Schema:
        with self._open(name) as file:
            return plain(file.schema_arrow)

    def advice(self) -> list[str]:
        """A line on files that are slow to read from; looks at the first files alone."""
        for name in self.names()[:_FOOTERS]:
            with self._open(name) as file:
                groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            largest = max((group.total_byte_size for group in groups), default=0)
            if largest > _LARGE_GROUP:
                return [
                    f"{self.root.url(name)} has a row group of {largest / 1e9:.1f} GB, which is read from its"
                    " beginning for every row that is looked up in it; write the files with"
                    " row_group_size=1000 or less"
                ]
        return []

    def batches(self, name: str, columns: Sequence[str] | None) -> Iterator[Batch]:
        columns = self.schema().names if columns is None else columns
        with self._open(name) as file:
            check_drift(self._first(), self.schema(), name, plain(file.schema_arrow))
            for group in range(file.num_row_groups):
                yield from self._read(name, file, group, columns)

    def take(
        self, name: str, positions: np.ndarray, columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        columns = self.schema().names if columns is None else columns
        with self._open(name) as file:
            ends = np.cumsum(_group_rows(file))
        if len(positions) and positions[-1] >= (ends[-1] if len(ends) else 0):
            raise DatasetError(f"{name} has no row {positions[-1]}: it has changed")
        groups = np.searchsorted(ends, positions, side="right")
        version = self.root.version(name)
        for group in np.unique(groups).tolist():
            yield from self._readings.take(
                (name, version, group, tuple(columns)),
                positions[groups == group],
                partial(self._group, name, group, columns),
                keep=group == groups[-1],
            )

    def _group(self, name: str, group: int, columns: Sequence[str]) -> Iterator[Batch]:
        with self._open(name) as file:
            yield from self._read(name, file, group, columns)

    def _first(self) -> str:
        names = self.names()
        if not names:
            raise DatasetError(f"there is no Parquet file in {self.root.path}")
        return names[0]

    def _open(self, name: str) -> pq.ParquetFile:
        key = (name, self.root.version(name))
        try:
            file = pq.ParquetFile(
                self.root.open(name),
                metadata=self._footers.get(key),
                buffer_size=_AHEAD,
                pre_buffer=False,
            )
        except (pa.ArrowException, OSError) as error:
            raise _damaged(name, error) from None
        if key not in self._footers:
            while len(self._footers) >= _FOOTERS:
                del self._footers[next(iter(self._footers))]
            self._footers[key] = file.metadata
        return file

    def _read(
        self, name: str, file: pq.ParquetFile, group: int, columns: Sequence[str]
    ) -> Iterator[Batch]:
        position = sum(_group_rows(file)[:group])
        rows = _batch_rows(file.metadata.row_group(group))
        read = file.iter_batches(rows, row_groups=[group], columns=list(columns))
        while True:
            try:
                batch = next(read, None)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(name, error) from None
            if batch is None:
                break
            yield np.arange(position, position + batch.num_rows), self._cast(name, batch, columns)
            position += batch.num_rows

    def _cast(self, name: str, batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
        """The columns in their order, with the types of all files."""
        fields = [self.schema().field(column) for column in columns]
        arrays = [kept(name, field, batch.column(field.name)) for field in fields]
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _group_rows(file: pq.ParquetFile) -> list[int]:
    return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    """As many rows as the byte limit allows, going by the group's mean row."""
    mean = max(1, group.total_byte_size // max(1, group.num_rows))
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // mean)))


def _damaged(name: str, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return error  # the disk or the server, not the file: it may pass
    said = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return DatasetError(
        f"{name} is not a whole Parquet file, cut or damaged; write or copy it again ({said})"
    )
