"""Times that Parquet holds in 96 bits are kept, or refused by name where their type has no room for them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.dataset import DatasetError
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, read


class TestTimesOfParquetIn96Bits:
    """As Spark, Hive and Impala write them; a year 9999 stands there for never."""

    NEVER = [0, 253_402_300_799_000_000, None, -62_135_596_800_000_000]

    def write(self, folder: Path, micros: list[int | None], **metadata: str) -> Path:
        kind = pa.timestamp("us")
        times = pa.array(micros, kind)
        nested = pa.array([None if v is None else [{"at": v}] for v in micros])
        nested = nested.cast(pa.list_(pa.struct([("at", kind)])))
        columns = {"image": [PNG] * len(micros), "until": times, "all": nested}
        table = pa.table({"text": ["a hat"] * len(micros), **columns})
        table = table.replace_schema_metadata(metadata)
        path = folder / "a.parquet"
        pq.write_table(table, path, use_deprecated_int96_timestamps=True, row_group_size=2)
        return path

    def test_those_of_spark_are_kept(self, tmp_path: Path) -> None:
        self.write(tmp_path, self.NEVER, **{"org.apache.spark.version": "3.5.1"})
        dataset = open_dataset(tmp_path)
        assert dataset.extra_schema.field("until").type == pa.timestamp("us")
        extra = dataset.fetch(dataset.files[0], range(4))["extra"].combine_chunks()
        assert extra.field("until").cast(pa.int64()).to_pylist() == self.NEVER
        within = extra.field("all").flatten().flatten()[0].cast(pa.int64()).to_pylist()
        assert [value for value in within if value] == [v for v in self.NEVER if v]

    @pytest.mark.parametrize("column", ["until", "all"])
    def test_of_others_what_nanoseconds_do_not_hold_is_refused_by_name(
        self, tmp_path: Path, column: str
    ) -> None:
        self.write(tmp_path, self.NEVER)
        with pytest.raises(
            DatasetError, match=rf"a\.parquet: column '{column}' holds times \(INT96\)"
        ):
            read(open_dataset(tmp_path, columns={"extra": [column]}))
        assert len(read(open_dataset(tmp_path, columns={"extra": []}))) == 4

    def test_those_within_are_nanoseconds_as_before(self, tmp_path: Path) -> None:
        self.write(tmp_path, [1, None, -5, 10**15])
        dataset = open_dataset(tmp_path)
        assert dataset.extra_schema.field("until").type == pa.timestamp("ns")
        extra = dataset.fetch(dataset.files[0], range(4))["extra"].combine_chunks()
        held = extra.field("until").cast(pa.int64()).to_pylist()
        assert held == [1_000, None, -5_000, 10**18]
