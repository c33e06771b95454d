"""The forms a dataset comes in, one module a form, all behind the protocol `Source`.

A source knows how its form is laid out and yields the columns it finds; `pipeline.dataset` makes
the same columns of all of them. Imports nothing of the pipeline but its own siblings.
"""

from __future__ import annotations

SOURCES: dict[str, str] = {
    "parquet": "pipeline.sources.parquet:ParquetSource",
    "imagefolder": "pipeline.sources.imagefolder:ImageFolderSource",
    "jsonl": "pipeline.sources.table:JsonLinesSource",
    "csv": "pipeline.sources.table:CsvSource",
    "webdataset": "pipeline.sources.webdataset:WebDatasetSource",
    "img2dataset": "pipeline.sources.img2dataset:Img2DatasetSource",
}
