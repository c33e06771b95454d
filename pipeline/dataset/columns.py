"""Which column holds what: the settings, the guess by name and type, and the check of both.

Images are bytes, paths, or a struct of both; texts are strings or lists of strings; ids are
strings or whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from pipeline.dataset.forms import called
from pipeline.dataset.forms.base import DatasetError, is_binary, is_list, is_string
from pipeline.dataset.forms.kinds import BOOL, ITEMS, LIST, OBJECT, STRING, is_empty, json_kinds
from pipeline.dataset.schema import OWN_COLUMNS

NONE = "none"
# Lists within lists that rows of pixels are.
_OF_PIXELS = 2
# Kinds of JSON that may name an image: a string, an object with its path, a list of such.
_PATHS = STRING | OBJECT | (STRING | OBJECT) << ITEMS


class ColumnSettings(BaseModel):
    """Which columns hold what."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(
        default=None,
        description="Column of unique ids; found by name if left out; 'none': a digest of the row."
        " A column within another is named by its path, as in caption.en, also of a map by its key.",
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
    listed = ", ".join(f"{field.name} ({type_in_words(field)})" for field in schema)
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
        kind = type_in_words(schema.field(found["image"]))
        raise DatasetError(
            f"columns.image: column {found['image']!r} is {kind}, not images"
            " (bytes, paths, or a struct of bytes and path)"
        )
    if found["text"] and text_kind(schema.field(found["text"])) is None:
        kind = type_in_words(schema.field(found["text"]))
        raise DatasetError(f"columns.text: column {found['text']!r} is {kind}, not text")
    if found["text"] and found["text"] == found["image"]:
        raise DatasetError(f"columns.image and columns.text are both {found['text']!r}")
    if found["id"] and not _is_id(schema.field(found["id"])):
        kind = type_in_words(schema.field(found["id"]))
        raise DatasetError(
            f"columns.id: column {found['id']!r} is {kind}; ids are strings or whole numbers"
        )
    used = {column for column in found.values() if column}
    if found["image"] and _may_be_several(schema.field(found["image"])):
        used.remove(found["image"])  # what is beside the image of a row passes through
    if found["text"] and _may_be_no_text(schema.field(found["text"])):
        used.remove(found["text"])  # so that it is kept at all
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


def type_in_words(field: pa.Field) -> str:
    """A column's type in words."""
    return (
        str(field.type)
        if json_kinds(field) is None
        else "JSON: objects, or values of several kinds"
    )


def has_fields(field: pa.Field) -> bool:
    """Whether a column holds objects, or lists of them or of lists of texts, of which a path can name one."""
    kind, kinds, depth = field.type, json_kinds(field), 0
    while is_list(kind):
        kind, depth = kind.value_type, depth + 1
    if kinds is not None:
        return bool(kinds & (OBJECT | OBJECT << ITEMS))
    return pa.types.is_struct(kind) or (depth > 1 and is_string(kind))


def _by_name(schema: pa.Schema, names: Sequence[str], fits: Any) -> str | None:
    found = [f for name in names for f in schema if f.name.lower() == name and fits(f)]
    # A column of which nothing was seen yet gives way to one that holds something, and one of
    # objects, which may tell of anything, to one of plain values.
    return min(found, key=lambda f: (is_empty(f), _is_of_objects(f))).name if found else None


def _is_of_objects(field: pa.Field) -> bool:
    """Whether a column that is JSON text holds nothing that is a path as it stands."""
    return not _holds(field, STRING | STRING << ITEMS)


def image_kind(field: pa.Field) -> str | None:
    kind = field.type
    if pa.types.is_struct(kind):
        names = {child.name for child in kind}
        return "struct" if names & {"bytes", "path"} and _struct_fits(kind) else None
    if is_binary(kind) and not pa.types.is_fixed_size_binary(kind):
        return "bytes"
    if is_list(kind):
        return "list" if image_kind(kind.value_field) in ("bytes", "path", "struct") else None
    return "path" if is_string(kind) and _holds(field, _PATHS) else None


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


def _may_be_several(field: pa.Field) -> bool:
    """Whether an image column may hold more of a row than an image: others, or what an object says of it."""
    return image_kind(field) == "list" or bool((json_kinds(field) or 0) & (LIST | OBJECT))


def _may_be_no_text(field: pa.Field) -> bool:
    """Whether a text column may hold what is neither a text nor a list of texts."""
    others = OBJECT | BOOL
    return bool((json_kinds(field) or 0) & (others | others << ITEMS))


def may_hold(kind: pa.DataType, half: str) -> bool:
    """Whether values of a type may hold texts or pictures, packed in bytes or in other values.

    Lists of lists of numbers may be the pixels of a picture.
    """
    if is_string(kind) or is_binary(kind):
        return True
    if half == "image" and is_list(kind) and kind.value_type in (pa.uint8(), pa.int8()):
        return True
    if half == "image" and _depth(kind) >= _OF_PIXELS:
        return True
    return any(may_hold(kind.field(i).type, half) for i in range(kind.num_fields))


def _depth(kind: pa.DataType) -> int:
    """How many lists stand within one another around numbers; 0 for anything else."""
    depth = 0
    while is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth if pa.types.is_integer(kind) or pa.types.is_floating(kind) else 0


def free_name(name: str, taken: set[str]) -> str:
    if name not in OWN_COLUMNS:
        return name
    while name in taken or name in OWN_COLUMNS:
        name = f"source_{name}"
    return name
