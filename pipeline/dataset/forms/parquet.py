"""Parquet files: image bytes, paths, or Hugging Face's struct of both, in any column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset.forms.base import (
    BATCH_BYTES,
    BATCH_ROWS,
    Batch,
    DatasetError,
    SourceFile,
    is_list,
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
# Microseconds that nanoseconds of 64 bits have room for.
_MOST_MICROSECONDS = (2**63 - 1) // 1000


class ParquetSource:
    """Every Parquet file below a root."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._footers: dict[tuple[str, str], pq.FileMetaData] = {}
        self._of_spark: dict[tuple[str, str], bool] = {}
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
        file = self._opened(name, self._footers.get(key), self._of_spark.get(key, False))
        if key not in self._of_spark:
            self._of_spark[key] = _has_int96(file) and _is_of_spark(file.metadata)
            if self._of_spark[key]:
                file = self._opened(name, file.metadata, True)
        if key not in self._footers:
            while len(self._footers) >= _FOOTERS:
                del self._footers[next(iter(self._footers))]
            self._footers[key] = file.metadata
        return file

    def _opened(self, name: str, footer: pq.FileMetaData | None, micro: bool) -> pq.ParquetFile:
        """A file, whose times of 96 bits are read as microseconds or, as Arrow does, as nanoseconds."""
        try:
            return pq.ParquetFile(
                self.root.open(name),
                metadata=footer,
                buffer_size=_AHEAD,
                pre_buffer=False,
                coerce_int96_timestamp_unit="us" if micro else None,
            )
        except (pa.ArrowException, OSError) as error:
            raise _damaged(name, error) from None

    def _read(
        self, name: str, file: pq.ParquetFile, group: int, columns: Sequence[str]
    ) -> Iterator[Batch]:
        position = sum(_group_rows(file)[:group])
        rows = _batch_rows(file.metadata.row_group(group))
        read = file.iter_batches(rows, row_groups=[group], columns=list(columns))
        times = self._times(name, file, group, rows, columns)
        while True:
            try:
                batch, wide = next(read, None), next(times, None)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(name, error) from None
            if batch is None:
                break
            if wide is not None:
                _check_times(name, wide)
            yield np.arange(position, position + batch.num_rows), self._cast(name, batch, columns)
            position += batch.num_rows

    def _times(
        self, name: str, file: pq.ParquetFile, group: int, rows: int, columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """The columns of times of 96 bits that are read as nanoseconds, as microseconds."""
        if self._of_spark.get((name, self.root.version(name))) or not _has_int96(file):
            return
        with self._opened(name, file.metadata, True) as other:
            found = other.schema_arrow
            asked = [c for c in columns if found.field(c).type != file.schema_arrow.field(c).type]
            if asked:
                yield from other.iter_batches(rows, row_groups=[group], columns=asked)

    def _cast(self, name: str, batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
        """The columns in their order, with the types of all files."""
        fields = [self.schema().field(column) for column in columns]
        arrays = [kept(name, field, batch.column(field.name)) for field in fields]
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _has_int96(file: pq.ParquetFile) -> bool:
    schema = file.metadata.schema
    return any(schema.column(i).physical_type == "INT96" for i in range(file.metadata.num_columns))


def _is_of_spark(footer: pq.FileMetaData) -> bool:
    """Whether Spark wrote a file, whose times are microseconds in whatever form."""
    return any(b"spark" in key for key in footer.metadata or {})


def _check_times(name: str, batch: pa.RecordBatch) -> None:
    """Refuse times in microseconds that nanoseconds have no room for: Arrow would make others of them.

    Raises
    ------
    DatasetError
    """
    for field, column in zip(batch.schema, batch.columns, strict=True):
        for values in _times_in(column):
            ends = pc.min_max(values.cast(pa.int64())).values()
            if any(end.is_valid and abs(end.as_py()) > _MOST_MICROSECONDS for end in ends):
                raise DatasetError(
                    f"{name}: column {field.name!r} holds times (INT96) beyond the years 1678 to 2261, which"
                    " is all that its nanoseconds have room for; write it as timestamps of microseconds, or"
                    " leave it out of columns.extra"
                )


def _times_in(array: pa.Array) -> Iterator[pa.Array]:
    """The arrays of times in a column, at any depth."""
    if pa.types.is_timestamp(array.type):
        yield array
    elif pa.types.is_struct(array.type) or pa.types.is_map(array.type):
        parts = array.flatten() if pa.types.is_struct(array.type) else [array.keys, array.items]
        for part in parts:
            yield from _times_in(part)
    elif is_list(array.type):
        yield from _times_in(array.flatten())


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
