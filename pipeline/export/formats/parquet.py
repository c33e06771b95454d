"""Parquet, as the completed dataset itself: every column, images that `datasets` decodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.forms.file_metadata import of_columns
from pipeline.dataset.schema import ROW_GROUP_ROWS
from pipeline.export.formats.base import ShardWriter, code


class ParquetWriter(ShardWriter):
    """Parquet files that `datasets` decodes the images of."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        names = self.schema.names
        if self.settings.columns is not None:
            names = [n for n in names if n in ("id", "image", "text") or n in self.columns]
        self._names = names
        fields = [self.schema.field(name) for name in names]
        self._schema = pa.schema(fields, metadata=of_columns(self.schema.metadata, names))
        self._file: pq.ParquetWriter | None = None
        self._held: list[pa.RecordBatch] = []

    def place(self, number: int) -> str:
        return f"data/train-{number:05d}.parquet"

    def begin(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd")

    def add_of(self, batch: pa.RecordBatch, keys: list[str]) -> None:
        self.rows += batch.num_rows
        self._held.append(batch.select(self._names))
        while sum(held.num_rows for held in self._held) >= ROW_GROUP_ROWS:
            self._flush(ROW_GROUP_ROWS)

    def finish(self) -> None:
        if self._held:
            self._flush(ROW_GROUP_ROWS)
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        self.finish()

    def usage(self) -> str:
        return code(
            "from datasets import load_dataset\n\n"
            f'rows = load_dataset("parquet", data_files="{self.final}/data/*.parquet")["train"]'
            + self.observed('rows.filter(lambda row: row["status"] == "observed")')
        )

    def _flush(self, count: int) -> None:
        assert self._file is not None
        table = pa.Table.from_batches(self._held).cast(self._schema)
        group, rest = table.slice(0, count), table.slice(count)
        self._file.write_table(group, row_group_size=ROW_GROUP_ROWS)
        self._held = rest.to_batches()
