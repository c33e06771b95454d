"""Parquet, as the completed dataset itself: every column, images that `datasets` decodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.schema import ROW_GROUP_ROWS
from pipeline.export.formats.base import Writer, code


class ParquetWriter(Writer):
    """Parquet files that `datasets` decodes the images of."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        names = self.schema.names
        if self.columns is not None:
            names = [n for n in names if n in ("id", "image", "text") or n in self.columns]
        self._names = names
        fields = [self.schema.field(name) for name in names]
        self._schema = pa.schema(fields, metadata=self.schema.metadata)
        self._file: pq.ParquetWriter | None = None
        self._paths: list[Path] = []
        self._in_file = 0
        self._held: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        self._held.append(batch.select(self._names))
        while sum(held.num_rows for held in self._held) >= ROW_GROUP_ROWS:
            self._flush(ROW_GROUP_ROWS)

    def close(self) -> None:
        if self._held:
            self._flush(ROW_GROUP_ROWS)
        if self._file is not None:
            self._file.close()
        for number, path in enumerate(self._paths):
            path.rename(path.with_name(f"train-{number:05d}-of-{len(self._paths):05d}.parquet"))

    def usage(self) -> str:
        return code(
            "from datasets import load_dataset\n\n"
            f'rows = load_dataset("parquet", data_files="{self.final}/data/*.parquet")["train"]\n'
            'observed = rows.filter(lambda row: row["status"] == "observed")'
        )

    def _flush(self, count: int) -> None:
        table = pa.Table.from_batches(self._held).cast(self._schema)
        group, rest = table.slice(0, count), table.slice(count)
        if self._file is None or self._in_file + group.num_rows > self.settings.shard_rows:
            if self._file is not None:
                self._file.close()
            path = self.scratch / "data" / f"{len(self._paths)}.parquet"
            path.parent.mkdir(exist_ok=True)
            self._paths.append(path)
            self._file = pq.ParquetWriter(path, self._schema, compression="zstd")
            self._in_file = 0
        self._file.write_table(group, row_group_size=ROW_GROUP_ROWS)
        self._in_file += group.num_rows
        self._held = rest.to_batches()
