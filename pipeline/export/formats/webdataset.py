"""WebDataset shards, as webdataset and open_clip stream them."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

from pipeline.export.formats.base import Writer, code, image_file, json_line


class WebDatasetWriter(Writer):
    """Tar shards of image, text and JSON, with the sizes that open_clip asks for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tar: tarfile.TarFile | None = None
        self._sizes: dict[str, int] = {}

    def write(self, row: dict[str, Any], texts: list[str]) -> None:
        if self.rows % self.settings.shard_rows == 0:
            self._next()
        # The usual decoders know these three by their names; anything else becomes PNG.
        extension, data = image_file(row["image"]["bytes"], ("jpg", "png", "webp"))
        record = json_line(self.record(row, texts))
        key = f"{self.rows:09d}"
        self._member(f"{key}.{extension}", data)
        self._member(f"{key}.txt", texts[0].encode())
        self._member(f"{key}.json", record.encode())
        self._sizes[next(reversed(self._sizes))] += 1

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
        (self.scratch / "sizes.json").write_text(json.dumps(self._sizes, indent=1))

    def usage(self) -> str:
        last = len(self._sizes) - 1
        shards = f"{self.final}/{{00000..{last:05d}}}.tar" if last else f"{self.final}/00000.tar"
        return (
            code(
                "import webdataset as wds\n\n"
                f'rows = wds.WebDataset("{shards}", shardshuffle=False).decode("pil")\n'
                'observed = rows.select(lambda row: row["json"]["status"] == "observed")'
            )
            + "\n\nThe ids are in the JSON; the keys are running numbers. Images that are not JPEG,"
            " PNG or WebP became PNG. Where a row has more captions, `txt` is the first."
        )

    def _next(self) -> None:
        if self._tar is not None:
            self._tar.close()
        name = f"{len(self._sizes):05d}.tar"
        self._sizes[name] = 0
        self._tar = tarfile.open(self.scratch / name, "w")  # noqa: SIM115  closed by close

    def _member(self, name: str, data: bytes) -> None:
        assert self._tar is not None
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))
