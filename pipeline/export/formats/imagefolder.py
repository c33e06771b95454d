"""Image files and `metadata.parquet`, as `datasets` reads them.

Not `metadata.jsonl`: of that `datasets` makes times of whatever looks like one, and JSON has no dates,
bytes or decimals of its own.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset.forms.base import is_list, of_type
from pipeline.dataset.forms.file_metadata import of_columns
from pipeline.dataset.schema import COMPLETION, HUGGINGFACE, OWN, features_of, with_features
from pipeline.export.formats.base import (
    IN_SOURCE,
    KEPT_FORMATS,
    PROVENANCE,
    Writer,
    code,
    provenance_of,
    said_of_images,
)
from pipeline.export.json_values import json_values

FILE_NAME = "file_name"
METADATA = "metadata.parquet"
_HELD = ".metadata.arrows"
_PROVENANCE = pa.struct(
    [COMPLETION.field(name) for name in PROVENANCE] + [pa.field("examples", pa.list_(pa.string()))]
)


class ImageFolderWriter(Writer):
    """Image files and `metadata.parquet`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        passed = {name: self.schema.field(name) for name in self.keys}
        self._fields = [
            pa.field(FILE_NAME, pa.string()),
            pa.field("id", pa.string()),
            pa.field("text", pa.string()),
            *([pa.field("texts", pa.list_(pa.string()))] if self._lists else []),
            *(
                of_type(field.with_name(self.keys[name]), _read_type(field.type))
                for name, field in passed.items()
            ),
            *([pa.field("provenance", _PROVENANCE)] if self.settings.columns is None else []),
        ]
        # Columns that become text, and those that may have to.
        self._as_text: set[str] = set()
        self._doubtful = [f.name for f in self._fields if _is_doubtful(f.type)]
        self._held = pa.ipc.new_stream(str(self.scratch / _HELD), pa.schema(self._fields))

    @property
    def _lists(self) -> bool:
        return pa.types.is_list(self.schema.field("text").type)

    def reserved(self, name: str) -> bool:
        return super().reserved(name) or _opened(name)

    def add(self, batch: pa.RecordBatch) -> None:
        told: dict[str, list[Any]] = {"file_name": [], "id": [], "text": [], "texts": []}
        provenance = []
        for row, texts in self.own_columns(batch):
            told["file_name"].append(self.save_image(row))
            told["id"].append(row["id"])
            told["text"].append(texts[0])
            told["texts"].append(texts)
            provenance.append(provenance_of(row))
        columns = {key: batch[name] for name, key in self.keys.items()}
        made = told | {"provenance": provenance}
        arrays = [
            _as_read(columns[field.name])
            if field.name in columns
            else pa.array(made[field.name], field.type)
            for field in self._fields
        ]
        self._held.write_batch(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(self._fields)))
        for field, array in zip(self._fields, arrays, strict=True):
            if field.name in self._doubtful and not _survives(array):
                self._as_text.add(field.name)

    def close(self) -> None:
        self._held.close()
        held, schema = self.scratch / _HELD, self._schema()
        with (
            pa.ipc.open_stream(pa.memory_map(str(held))) as stream,
            pq.ParquetWriter(self.scratch / METADATA, schema, compression="zstd") as writer,
        ):
            for batch in stream:
                table = pa.Table.from_batches([batch])
                columns = [
                    _text_of(table[f.name]) if f.name in self._as_text else table[f.name]
                    for f in schema
                ]
                writer.write_table(pa.table(columns, schema=schema))
        held.unlink()

    def __exit__(self, kind: object = None, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self._held.close()

    def _schema(self) -> pa.Schema:
        """Of the metadata, with what the source says of its columns, and what `datasets` knows of them."""
        fields = [of_type(f, pa.string()) if f.name in self._as_text else f for f in self._fields]
        features = {
            self.keys[name]: told
            for name, told in features_of(self.schema).items()
            if name in self.keys and not _opens(told)
        }
        as_they_were = [n for n, key in self.keys.items() if n == key and n not in self._as_text]
        said = of_columns(self.schema.metadata, as_they_were)
        said = {key: value for key, value in said.items() if key not in (HUGGINGFACE, OWN)}
        return with_features(pa.schema(fields, metadata=said), features)

    def usage(self) -> str:
        read = code(
            "from datasets import load_dataset\n\n"
            f'rows = load_dataset("imagefolder", data_dir="{self.final}")["train"]'
            + self.observed('rows.filter(lambda row: row["status"] == "observed")')
        )
        told = ""
        if self._as_text:
            names = ", ".join(sorted(self._as_text))
            told = (
                f"\n\nValues of {names} are text (times ISO 8601), for `datasets` would not read all of"
                " them from here as they are: those that Python has no value for. Parquet has them as"
                " they came."
            )
        read += "\n\nIt takes `datasets` 3.4 or later: earlier ones do not look into `metadata.parquet`."
        return read + said_of_images(KEPT_FORMATS) + told


def _opened(key: str) -> bool:
    """Whether `datasets` takes what stands under a key of the metadata for a file to open."""
    return f"_{key}".endswith(("_file_name", "_file_names"))


def _read_type(kind: pa.DataType) -> pa.DataType:
    """The type as `datasets` reads it, with other names for what it would open, within structs too."""
    if pa.types.is_dictionary(kind):
        return _read_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([of_type(f.with_name(_key(f.name)), _read_type(f.type)) for f in kind])
    if not is_list(kind):
        return kind
    inner = of_type(kind.value_field, _read_type(kind.value_type))
    return pa.large_list(inner) if pa.types.is_large_list(kind) else pa.list_(inner)


def _opens(told: Any) -> bool:
    """Whether `datasets` would open files for what it is told of a column."""
    if isinstance(told, dict):
        media = told.get("_type") in ("Image", "Audio", "Video", "Pdf", "Nifti")
        return media or any(map(_opens, told.values()))
    return isinstance(told, list) and any(map(_opens, told))


def _key(name: str) -> str:
    return f"{name}{IN_SOURCE}" if _opened(name) else name


def _as_read(array: pa.Array) -> pa.Array:
    """An array in its `_read_type`."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _as_read(array.dictionary_decode())
    if pa.types.is_struct(kind):
        parts = [_as_read(part) for part in array.flatten()]
        return pa.StructArray.from_arrays(
            parts, fields=list(_read_type(kind)), mask=array.is_null()
        )
    if not is_list(kind):
        return array
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    large = pa.types.is_large_list(kind)
    ends = pa.array(np.cumsum([0, *lengths]), pa.int64() if large else pa.int32())
    made = pa.LargeListArray if large else pa.ListArray
    return made.from_arrays(
        ends, _as_read(array.flatten()), type=_read_type(kind), mask=array.is_null()
    )


def _is_doubtful(kind: pa.DataType) -> bool:
    """Whether Python may not hold values of a type, or not tell that they are of it."""
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    large = kind == pa.uint64() or pa.types.is_decimal(kind)
    return pa.types.is_temporal(kind) or large or any(map(_is_doubtful, inner))


def _survives(array: pa.Array) -> bool:
    """Whether values are the same after `datasets` had them as Python's, whose types it guesses."""
    try:
        held = pa.array([_plain(value) for value in array.to_pylist()])
        return bool(held.cast(array.type).equals(array))
    except (ValueError, OverflowError, LookupError, pa.ArrowException):
        return False


def _plain(value: Any) -> Any:
    """A value in Python's own types, where pandas has one for nanoseconds."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime(warn=False)
    return value.to_pytimedelta() if hasattr(value, "to_pytimedelta") else value


def _text_of(column: pa.ChunkedArray) -> pa.Array:
    told = [value for chunk in column.chunks for value in json_values(chunk)]
    texts = (v if v is None or isinstance(v, str) else json.dumps(v) for v in told)
    return pa.array(texts, pa.string())
