"""Arrow files: what `datasets.save_to_disk` writes, and Arrow's streams and files (Feather) as such."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

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

ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")
STATE = "state.json"
_FILE = b"ARROW1"


class ArrowSource:
    """Every Arrow file below a root; of a saved dataset those that its `state.json` lists.

    What `datasets` keeps beside them of its own computations (`cache-*.arrow`) is left out.
    """

    def __init__(self, root: Root) -> None:
        self.root = root
        self._names: list[str] | None = None
        self._schema: pa.Schema | None = None
        self._readings = Readings()

    def names(self) -> list[str]:
        if self._names is None:
            names = [n for n in self.root.names() if n.lower().endswith(ARROW_SUFFIXES)]
            listed = {
                posixpath.dirname(n): self._listed(n)
                for n in self.root.names()
                if posixpath.basename(n) == STATE
            }
            self._names = [
                n
                for n in self.root.filled(names)
                if (
                    n in listed[posixpath.dirname(n)]
                    if listed.get(posixpath.dirname(n))
                    else not posixpath.basename(n).startswith("cache-")
                )
            ]
        return self._names

    def files(self) -> list[SourceFile]:
        return [SourceFile(n, self.root.url(n), self.root.version(n)) for n in self.names()]

    def schema(self) -> pa.Schema:
        if self._schema is None:
            self._schema = common_schema(self.names(), self._schema_of, self.root.local)
        return self._schema

    def batches(self, name: str, columns: Sequence[str] | None) -> Iterator[Batch]:
        columns = self.schema().names if columns is None else columns
        check_drift(self.names()[0], self.schema(), name, self._schema_of(name))
        position = 0
        for batch in self._read(name):
            for part in _parts(batch.select(list(columns))):
                yield np.arange(position, position + part.num_rows), self._cast(name, part)
                position += part.num_rows

    def take(
        self, name: str, positions: np.ndarray, columns: Sequence[str] | None
    ) -> Iterator[Batch]:
        columns = self.schema().names if columns is None else columns
        key = (name, self.root.version(name), tuple(columns))
        yield from self._readings.take(key, positions, lambda: self.batches(name, columns))

    def _schema_of(self, name: str) -> pa.Schema:
        with self.root.open(name) as file:
            try:
                return plain(_reader(file).schema)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(name, error) from None

    def _read(self, name: str) -> Iterator[pa.RecordBatch]:
        with self.root.open(name) as file:
            try:
                reader = _reader(file)
                if isinstance(reader, pa.RecordBatchFileReader):
                    for number in range(reader.num_record_batches):
                        yield reader.get_batch(number)
                else:
                    yield from reader
            except (pa.ArrowException, OSError) as error:
                raise _damaged(name, error) from None

    def _cast(self, name: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        fields = [self.schema().field(column) for column in batch.schema.names]
        arrays = [kept(name, field, batch[field.name]) for field in fields]
        return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)

    def _listed(self, state: str) -> set[str]:
        """The files that a saved dataset consists of."""
        with self.root.open(state) as file:
            try:
                told = json.load(file)
                names = [entry["filename"] for entry in told["_data_files"]]
            except (ValueError, KeyError, TypeError):  # another program's state
                return set()
        return {posixpath.join(posixpath.dirname(state), name) for name in names}


def _reader(file: Any) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    head = file.read(len(_FILE))
    file.seek(0)
    return pa.ipc.open_file(file) if head == _FILE else pa.ipc.open_stream(file)


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in parts of a bounded number of rows and, going by the mean row, of bytes."""
    mean = max(1, batch.nbytes // max(1, batch.num_rows))
    rows = int(min(BATCH_ROWS, max(1, BATCH_BYTES // mean)))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def _damaged(name: str, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return error  # the disk or the server, not the file: it may pass
    said = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return DatasetError(
        f"{name} is not a whole Arrow file, cut or damaged; write or copy it again ({said})"
    )
