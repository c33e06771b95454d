"""Which column holds what: the settings, the guess by name and type, and the check of both.

Images are bytes, paths, or a struct of both; texts are strings or lists of strings; ids are
strings or whole numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from pipeline.dataset.forms import called
from pipeline.dataset.forms.base import DatasetError, is_binary, is_list, is_string
from pipeline.dataset.forms.kinds import LIST, OBJECT, STRING, is_empty, json_kinds
from pipeline.dataset.forms.reasons import NO_PATH
from pipeline.dataset.schema import OWN_COLUMNS

NONE = "none"


class ColumnSettings(BaseModel):
    """Which columns hold what."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(
        default=None,
        description="Column of unique ids; found by name if left out; 'none': a digest of the row.",
    )
    image: str | None = Field(
        default=None,
        description="Column of images (bytes, paths, or {bytes, path}); found by name if left out;"
        " 'none': no row has an image.",
    )
    text: str | None = Field(
        default=None,
        description="Column of captions (strings or lists of strings); found by name if left out;"
        " 'none': no row has a text.",
    )
    extra: list[str] | None = Field(
        default=None, description="Columns that pass through; all others if left out."
    )


def guess_columns(schema: pa.Schema) -> ColumnSettings:
    """Find the columns by their names and types; None where none fits.

    Names are compared in lower case, in an order of preference: `text` before `caption`, `image`
    before `file_name`.
    """
    images = _by_name(schema, called.IMAGES, lambda field: image_kind(field) is not None)
    if images is None:
        held = [f.name for f in schema if image_kind(f) in ("bytes", "struct")]
        images = held[0] if len(held) == 1 else None
    texts = _by_name(
        schema,
        called.TEXTS,
        lambda field: field.name != images and text_kind(field) is not None,
    )
    if texts is None:
        held = [f.name for f in schema if "caption" in f.name.lower() and text_kind(f)]
        texts = held[0] if len(held) == 1 else None
    ids = _by_name(schema, called.IDS, _is_id)
    return ColumnSettings(id=ids, image=images, text=texts)


def resolve_columns(asked: ColumnSettings, schema: pa.Schema) -> ColumnSettings:
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    for role in ("id", "image", "text"):
        column = getattr(asked, role)
        if column not in (None, NONE) and column not in schema.names:
            raise DatasetError(f"columns.{role}: there is no column {column!r}; there are {listed}")
    for column in asked.extra or ():
        if column not in schema.names:
            raise DatasetError(f"columns.extra: there is no column {column!r}; there are {listed}")
    twice = [name for name in set(schema.names) if schema.names.count(name) > 1]
    if twice:
        raise DatasetError(f"column {twice[0]!r} is there twice; rename one")
    guessed = guess_columns(schema)
    found = {
        role: None
        if getattr(asked, role) == NONE
        else getattr(asked, role) or getattr(guessed, role)
        for role in ("id", "image", "text")
    }
    if found["image"] is None and found["text"] is None:
        raise DatasetError(
            f"no column of images or texts was found; set columns.image, columns.text;"
            f" there are {listed}"
        )
    if found["image"] and image_kind(schema.field(found["image"])) is None:
        kind = schema.field(found["image"]).type
        raise DatasetError(
            f"columns.image: column {found['image']!r} is {kind}, not images"
            " (bytes, paths, or a struct of bytes and path)"
        )
    if found["text"] and text_kind(schema.field(found["text"])) is None:
        kind = schema.field(found["text"]).type
        raise DatasetError(f"columns.text: column {found['text']!r} is {kind}, not text")
    if found["text"] and found["text"] == found["image"]:
        raise DatasetError(f"columns.image and columns.text are both {found['text']!r}")
    if found["id"] and not _is_id(schema.field(found["id"])):
        kind = schema.field(found["id"]).type
        raise DatasetError(
            f"columns.id: column {found['id']!r} is {kind}; ids are strings or whole numbers"
        )
    used = {column for column in found.values() if column}
    if found["image"] and image_kind(schema.field(found["image"])) == "list":
        used.remove(found["image"])  # what follows the first image of a row passes through
    rest = [c for c in schema.names if c not in used]
    extra = rest if asked.extra is None else [c for c in asked.extra if c not in used]
    return ColumnSettings(**found, extra=extra)


def settle_columns(
    asked: ColumnSettings, before: ColumnSettings, schema: pa.Schema
) -> ColumnSettings:
    """The columns by a schema that grew: roles stay where they were, unless nothing was there."""
    held = {
        role: column
        for role in ("id", "image", "text")
        if (column := getattr(before, role)) in schema.names and not is_empty(schema.field(column))
    }
    named = {role: getattr(asked, role) for role in held if getattr(asked, role)}
    return resolve_columns(asked.model_copy(update=held | named), schema)


def _by_name(schema: pa.Schema, names: Sequence[str], fits: Any) -> str | None:
    found = [f for name in names for f in schema if f.name.lower() == name and fits(f)]
    # A column of which nothing was seen yet gives way to one that holds something.
    return min(found, key=is_empty).name if found else None


def image_kind(field: pa.Field) -> str | None:
    kind = field.type
    if pa.types.is_struct(kind):
        names = {child.name for child in kind}
        return "struct" if names & {"bytes", "path"} and _struct_fits(kind) else None
    if is_binary(kind) and not pa.types.is_fixed_size_binary(kind):
        return "bytes"
    if is_list(kind):
        return "list" if image_kind(kind.value_field) in ("bytes", "path", "struct") else None
    return "path" if is_string(kind) and _holds(field, STRING | OBJECT) else None


def _holds(field: pa.Field, kinds: int) -> bool:
    """Whether a column that is JSON text holds values of some of these kinds, if it is that."""
    held = json_kinds(field)
    return held is None or bool(held & kinds)


def _struct_fits(kind: pa.StructType) -> bool:
    fits = {"bytes": is_binary, "path": is_string}
    return all(fits[c.name](c.type) or pa.types.is_null(c.type) for c in kind if c.name in fits)


def text_kind(field: pa.Field) -> str | None:
    kind, kinds = field.type, json_kinds(field)
    if kinds is not None:
        return "list" if kinds & LIST else "string" if kinds & STRING else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return "list" if is_string(kind.value_type) else None
    return "string" if is_string(kind) or pa.types.is_null(kind) else None


def _is_id(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return "path" in {child.name for child in kind}
    if is_string(kind):
        return _holds(field, STRING)
    return pa.types.is_integer(kind) or is_uuid(kind)


def is_uuid(kind: pa.DataType) -> bool:
    """Whether a column holds UUIDs as their 16 bytes."""
    return kind == pa.binary(16)


def image_cells(column: pa.Array, field: pa.Field) -> list[dict[str, Any] | None]:
    """The image column's values as {bytes, path, reason}; of a list the first."""
    if json_kinds(field) is not None:
        return [_json_cell(text) for text in column.to_pylist()]
    if is_list(column.type):
        firsts = [held[0] if held else None for held in column.to_pylist()]
        return image_cells(pa.array(firsts, column.type.value_type), field.type.value_field)
    if pa.types.is_struct(column.type):
        names = {child.name for child in column.type}
        cells = column.to_pylist()
        whole = {"bytes", "path", "reason"} <= names
        return cells if whole else [c and {"bytes": None, "path": None, **c} for c in cells]
    key = "bytes" if is_binary(column.type) else "path"
    other = "path" if key == "bytes" else "bytes"
    return [None if v is None else {key: v, other: None} for v in column.to_pylist()]


def _json_cell(text: str | None) -> dict[str, Any] | None:
    value = None if text is None else json.loads(text)
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        value = value["path"]
    if isinstance(value, str) or value is None:
        return None if value is None else {"bytes": None, "path": value}
    return {"bytes": None, "path": None, "reason": NO_PATH}


def may_hold(kind: pa.DataType, half: str) -> bool:
    """Whether values of a type may hold texts or pictures, packed in bytes or in other values."""
    if is_string(kind) or is_binary(kind):
        return True
    if half == "image" and pa.types.is_list(kind) and kind.value_type in (pa.uint8(), pa.int8()):
        return True
    return any(may_hold(kind.field(i).type, half) for i in range(kind.num_fields))


def free_name(name: str, taken: set[str]) -> str:
    if name not in OWN_COLUMNS:
        return name
    while name in taken or name in OWN_COLUMNS:
        name = f"source_{name}"
    return name
