"""What the writers of all layouts share: rows in, images as files, and what JSON says of a row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from pipeline.dataset.images import decode, encode
from pipeline.dataset.schema import COMPLETION, OWN_COLUMNS
from pipeline.export.json_values import json_values
from pipeline.export.settings import ExportSettings

# Image formats by the bytes that they start with.
_MAGIC = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
}
# The same formats in words.
KEPT_FORMATS = "JPEG, PNG, WebP, GIF, BMP and TIFF"
# What layouts in JSON say of a completion.
PROVENANCE = ("generator", "model", "revision", "score", "seed", "kb_version", "run_id")
# Ends the name of a column whose own name a layout uses itself.
IN_SOURCE = "_in_source"
_IMAGES_A_FOLDER = 1000
_MANY_PIXELS = 1 << 40


class Writer:
    """Writes rows to a folder in one layout. Use as a context manager.

    Parameters
    ----------
    scratch
        The folder that is written to.
    final
        Where it will stand.
    settings
        The export's.
    schema
        Of the completed dataset.
    columns
        Columns beside id, image and text; None for all.

    Attributes
    ----------
    rows : int
        Rows written so far.
    keys : dict of str to str
        By column what a JSON layout calls it: its own name, unless the layout means something else
        by that.
    """

    # What a JSON layout calls its own.
    own = frozenset({"id", "text", "texts", "provenance"})

    def __init__(
        self,
        scratch: Path,
        final: Path,
        settings: ExportSettings,
        schema: pa.Schema,
        columns: list[str] | None,
    ) -> None:
        self.scratch = scratch
        self.final = final
        self.settings = settings
        self.schema = schema
        self.rows = 0
        if columns is None:
            passed = [name for name in schema.names if name not in OWN_COLUMNS]
            columns = [*passed, "status", "missing", "reason"]
        self.columns = columns
        self.keys = {name: self._key(name) for name in columns}

    def add(self, batch: pa.RecordBatch) -> None:
        """Write the rows of a batch of the completed dataset."""
        for row, texts in self.told(batch):
            self.write(row, texts)

    def told(self, batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """The rows of a batch with their texts; each counts once the next is asked for.

        Pass-through columns are as JSON has them.
        """
        passed = [name for name in self.keys if name not in OWN_COLUMNS]
        columns = [json_values(batch.column(name)) for name in passed]
        rest = zip(*columns, strict=True) if columns else [()] * batch.num_rows
        for (own, texts), values in zip(self.own_columns(batch), rest, strict=True):
            yield own | dict(zip(passed, values, strict=True)), texts

    def own_columns(self, batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """The same without the pass-through columns."""
        names = [name for name in batch.schema.names if name in OWN_COLUMNS]
        for row in batch.select(names).to_pylist():
            texts = row["text"] if isinstance(row["text"], list) else [row["text"]]
            yield row, [text for text in texts if text]
            self.rows += 1

    def write(self, row: dict[str, Any], texts: list[str]) -> None:
        """Write a row; `self.rows` is its number."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish the files."""

    def usage(self) -> str:
        """How to read the layout, as Markdown."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def record(self, row: dict[str, Any], texts: list[str]) -> dict[str, Any]:
        """What a JSON layout says of a row: its columns, and in short where a half came from."""
        record: dict[str, Any] = {"id": row["id"], "text": texts[0]}
        if pa.types.is_list(self.schema.field("text").type):
            record["texts"] = texts
        record |= {key: row[name] for name, key in self.keys.items()}
        if self.settings.columns is None:
            record["provenance"] = provenance_of(row)
        return record

    @property
    def tells(self) -> bool:
        """Whether each row says which half was missing, and what became of it."""
        return {"status", "missing"} <= set(self.columns)

    def said_of_values(self) -> str:
        """What a JSON layout holds otherwise than the dataset, as Markdown."""
        if not any(name not in OWN_COLUMNS for name in self.columns):
            return ""
        return (
            "\n\nIn other columns bytes are Base64, times ISO 8601, durations seconds and decimals strings;"
            " what JSON has no number for (NaN, the infinities) is null. Parquet has all as they came."
        )

    def observed(self, expression: str) -> str:
        """Code that picks observed rows, where they can be told."""
        return f"\nobserved = {expression}" if "status" in self.columns else ""

    def reserved(self, name: str) -> bool:
        """Whether the layout means something of its own by a key."""
        return name in self.own

    def _key(self, column: str) -> str:
        key = column
        while self.reserved(key) or (key != column and key in self.schema.names):
            key = f"{key}{IN_SOURCE}"
        return key

    def save_image(self, row: dict[str, Any]) -> str:
        """Write the row's image as a file of its own; its path in the export."""
        extension, data = image_file(row["image"]["bytes"])
        folder = f"images/{self.rows // _IMAGES_A_FOLDER:05d}"
        if self.rows % _IMAGES_A_FOLDER == 0:
            (self.scratch / folder).mkdir(parents=True)
        name = f"{folder}/{self.rows:09d}.{extension}"
        (self.scratch / name).write_bytes(data)
        return name


class ShardWriter(Writer):
    """Writes rows to files of their own, each of which depends on its own rows alone.

    Attributes
    ----------
    files : dict of str to int
        Rows of all files of the export by place, those that were taken over too; set before `close`.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.files: dict[str, int] = {}

    def place(self, number: int) -> str:
        """Where the file with a number stands in the export."""
        raise NotImplementedError

    def begin(self, path: Path) -> None:
        """Rows go to this file from now on."""
        raise NotImplementedError

    def add_of(self, batch: pa.RecordBatch, keys: list[str]) -> None:
        """Write the rows of a batch; each has a key that no other row of the export has."""
        raise NotImplementedError

    def finish(self) -> None:
        """The file is whole."""
        raise NotImplementedError


def image_file(data: bytes, known: tuple[str, ...] = ()) -> tuple[str, bytes]:
    """A file's extension and bytes: as they are where the format is known, else as PNG."""
    extension = next((e for magic, e in _MAGIC.items() if data.startswith(magic)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        extension = "webp"
    if extension is not None and (not known or extension in known):
        return extension, data
    return "png", encode(decode(data, _MANY_PIXELS), "png")


def said_of_images(known: str) -> str:
    """What becomes of images in another format than those a layout takes, as Markdown."""
    return (
        f"\n\nImages in other formats than {known} became PNG: 8-bit RGB, upright, the first frame of"
        " an animation."
    )


def json_line(record: dict[str, Any]) -> str:
    """A record as JSON in one line; its numbers that JSON does not know are null."""
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def provenance_of(row: dict[str, Any]) -> dict[str, Any]:
    """Where a row's generated half came from, in short: `PROVENANCE` of its completion, and the examples' ids."""
    completion = row["completion"] or dict.fromkeys(field.name for field in COMPLETION)
    told = {name: completion[name] for name in PROVENANCE}
    return {**told, "examples": [example["id"] for example in completion["examples"] or ()]}


def code(text: str) -> str:
    """Python code in Markdown."""
    return f"```python\n{text}\n```"
