"""The layouts that consumers read, one writer each."""

from __future__ import annotations

from pipeline.export.formats.base import ShardWriter, Writer
from pipeline.export.formats.imagefolder import ImageFolderWriter
from pipeline.export.formats.llava import LlavaWriter
from pipeline.export.formats.open_clip import OpenClipWriter
from pipeline.export.formats.parquet import ParquetWriter
from pipeline.export.formats.webdataset import WebDatasetWriter

FORMATS: dict[str, type[Writer]] = {
    "parquet": ParquetWriter,
    "webdataset": WebDatasetWriter,
    "imagefolder": ImageFolderWriter,
    "llava": LlavaWriter,
    "open_clip": OpenClipWriter,
}

__all__ = ["FORMATS", "ShardWriter", "Writer"]
