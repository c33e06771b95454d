"""WebDataset shards, as webdataset and open_clip stream them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.export.formats.base import (
    ShardWriter,
    code,
    image_file,
    json_line,
    said_of_images,
)


class WebDatasetWriter(ShardWriter):
    """Tar shards of image, text and JSON, with the sizes that open_clip asks for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tar: tarfile.TarFile | None = None

    def place(self, number: int) -> str:
        return f"{number:05d}.tar"

    def begin(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w")  # noqa: SIM115  closed by finish

    def add_of(self, batch: pa.RecordBatch, keys: list[str]) -> None:
        for key, (row, texts) in zip(keys, self.told(batch), strict=True):
            # The usual decoders know these three by their names; anything else becomes PNG.
            extension, data = image_file(row["image"]["bytes"], ("jpg", "png", "webp"))
            record = json_line(self.record(row, texts))
            self._member(f"{key}.{extension}", data)
            self._member(f"{key}.txt", texts[0].encode())
            self._member(f"{key}.json", record.encode())

    def finish(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def close(self) -> None:
        self.finish()
        (self.scratch / "sizes.json").write_text(json.dumps(self.files, indent=1))

    def usage(self) -> str:
        last = len(self.files) - 1
        shards = f"{self.final}/{{00000..{last:05d}}}.tar" if last else f"{self.final}/00000.tar"
        return (
            code(
                "import webdataset as wds\n\n"
                f'rows = wds.WebDataset("{shards}", shardshuffle=False).decode("pil")'
                + self.observed('rows.select(lambda row: row["json"]["status"] == "observed")')
            )
            + "\n\nThe ids are in the JSON; the keys only tell the rows apart. Where a row has more"
            " captions, `txt` is the first."
            + said_of_images("JPEG, PNG and WebP")
            + self.said_of_values()
        )

    def _member(self, name: str, data: bytes) -> None:
        assert self._tar is not None
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))
