"""The layouts that consumers read, one writer each."""

from __future__ import annotations

from pipeline.formats.base import Writer
from pipeline.formats.files import ImageFolderWriter, LlavaWriter, OpenClipWriter
from pipeline.formats.parquet import ParquetWriter
from pipeline.formats.webdataset import WebDatasetWriter

FORMATS: dict[str, type[Writer]] = {
    "parquet": ParquetWriter,
    "webdataset": WebDatasetWriter,
    "imagefolder": ImageFolderWriter,
    "llava": LlavaWriter,
    "open_clip": OpenClipWriter,
}

__all__ = ["FORMATS", "Writer"]
