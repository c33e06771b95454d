"""Files of one dataset whose columns differ in type: the type that holds the values of all unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.forms.base import DatasetError, is_binary, is_list, is_string
from pipeline.dataset.forms.file_metadata import common
from pipeline.dataset.schema import features_of, with_features

_REQUESTS = 16
_UNITS = ("s", "ms", "us", "ns")


def common_schema(
    names: Sequence[str], schema_of: Callable[[str], pa.Schema], local: bool
) -> pa.Schema:
    """The first file's columns, each of the type that holds those of all files.

    A column that has no such type, and a file that can't be read, are told of when it is.

    Parameters
    ----------
    names
        Of the files.
    schema_of
        The columns of one.
    local
        Whether that takes no server; else several are asked for at a time.

    Raises
    ------
    DatasetError
        The first file can't be read.
    """
    first, *others = names
    schema = schema_of(first)

    def found(name: str) -> pa.Schema:
        try:
            return schema_of(name)
        except DatasetError:
            return schema

    if local:
        schemas = list(map(found, others))
    else:
        with ThreadPoolExecutor(_REQUESTS) as threads:
            schemas = list(threads.map(found, others))
    for other in schemas:
        schema = _said_alike(schema, other)
        if not other.equals(schema):
            schema = _widened(schema, other)
    return schema


def _said_alike(schema: pa.Schema, other: pa.Schema) -> pa.Schema:
    """A schema with what two files say alike, of themselves and of each column.

    What one alone tells `datasets` of a column stays: the other does not gainsay it.
    """
    fields = [
        field.with_metadata(common(field.metadata, other.field(field.name).metadata))
        if field.metadata and other.names.count(field.name) == 1
        else field
        for field in schema
    ]
    said = pa.schema(fields, metadata=common(schema.metadata, other.metadata))
    theirs = features_of(other)
    features = {n: one for n, one in features_of(schema).items() if theirs.get(n, one) == one}
    return said if features_of(said) == features else with_features(said, features)


def _widened(schema: pa.Schema, other: pa.Schema) -> pa.Schema:
    fields = []
    for field in schema:
        kind = None
        if other.names.count(field.name) == 1:
            kind = common_type(field.type, other.field(field.name).type)
        fields.append(field if kind is None else field.with_type(kind).with_nullable(True))
    return pa.schema(fields, metadata=schema.metadata)


def check_drift(first: str, expected: pa.Schema, name: str, found: pa.Schema) -> None:
    """Raise a `DatasetError` if a file's columns can't be those of the dataset.

    The order of columns does not matter, nor how strings are stored, nor a type within `expected`.
    """
    for field in expected:
        if field.name not in found.names:
            raise DatasetError(
                f"{name} has no column {field.name!r}, which {first} has ({field.type});"
                " give all files the same columns"
            )
        kind = found.field(field.name).type
        if common_type(field.type, kind) != field.type:
            raise DatasetError(
                f"column {field.name!r} is {kind} in {name}"
                f" but {field.type} in {first}; give all files the same types"
            )
    for column in found.names:
        if column not in expected.names:
            raise DatasetError(
                f"{name} has a column {column!r}, which {first} has not;"
                " give all files the same columns"
            )


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of two, None where there is none; the first where it does.

    Whole numbers become fractions where they stand beside such, unless one is found that a double
    can't hold (see `kept`).
    """
    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _common_struct(one, other)
    if is_list(one) and is_list(other):
        return _common_list(one, other)
    if (is_string(one) and is_string(other)) or (is_binary(one) and is_binary(other)):
        sized = pa.types.is_fixed_size_binary
        return None if sized(one) or sized(other) else one
    if pa.types.is_timestamp(one) and pa.types.is_timestamp(other):
        finer = max(one.unit, other.unit, key=_UNITS.index)
        return pa.timestamp(finer, one.tz) if one.tz == other.tz else None
    if pa.types.is_decimal128(one) and pa.types.is_decimal128(other):
        whole = max(one.precision - one.scale, other.precision - other.scale)
        scale = max(one.scale, other.scale)
        return pa.decimal128(whole + scale, scale) if whole + scale <= 38 else None
    return _common_number(one, other)


def _common_struct(one: pa.StructType, other: pa.StructType) -> pa.DataType | None:
    fields, theirs = list(one), {field.name: field for field in other}
    if len(theirs) < other.num_fields or {field.name for field in fields} != theirs.keys():
        return None
    kinds = [common_type(field.type, theirs[field.name].type) for field in fields]
    if any(kind is None for kind in kinds):
        return None
    return pa.struct([f.with_type(k) for f, k in zip(fields, kinds, strict=True)])


def _common_list(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    inner = common_type(one.value_type, other.value_type)
    if inner is None:
        return None
    field = one.value_field.with_type(inner)
    if pa.types.is_fixed_size_list(one):
        same = getattr(other, "list_size", None) == one.list_size
        return pa.list_(field, one.list_size) if same else None
    return pa.large_list(field) if pa.types.is_large_list(one) else pa.list_(field)


def _common_number(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    kinds = (one, other)
    whole = [kind for kind in kinds if pa.types.is_integer(kind)]
    if len(whole) + sum(map(pa.types.is_floating, kinds)) < len(kinds):
        return None
    if not whole:
        return max(kinds, key=lambda kind: kind.bit_width)
    if len(whole) == 1:
        return pa.float64()
    signed = [kind for kind in kinds if pa.types.is_signed_integer(kind)]
    if len(signed) != 1:
        return max(kinds, key=lambda kind: kind.bit_width)
    (unsigned,) = (kind for kind in kinds if kind not in signed)
    needed = max(signed[0].bit_width, 2 * unsigned.bit_width)
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(needed)


def kept(name: str, field: pa.Field, array: pa.Array) -> pa.Array:
    """A file's column in the type of all files.

    Raises
    ------
    DatasetError
        A value of it would be another in that type.
    """
    try:
        return to_type(array, field.type)
    except pa.ArrowInvalid as error:
        raise DatasetError(
            f"column {field.name!r} is {array.type} in {name} and {field.type} in other files,"
            f" which can't hold all of its values ({str(error)[:100]}); give all files the same types"
        ) from None


def to_type(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """An array in another type, without a detour through Python's values."""
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    if pa.types.is_dictionary(array.type):
        if not pa.types.is_dictionary(kind):
            return to_type(array.dictionary_decode(), kind)
        # Parquet's writer knows no category that is null.
        if array.dictionary.null_count:
            array = array.dictionary_decode().dictionary_encode()
    # Arrow's cast leaves the nulls within lists as they are, and the order of fields.
    if pa.types.is_struct(kind) and pa.types.is_struct(array.type):
        names = [field.name for field in array.type]
        columns = dict(zip(names, array.flatten(), strict=True))
        parts = [to_type(columns[field.name], field.type) for field in kind]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=array.is_null())
    if array.type.equals(kind) or not (is_list(kind) and is_list(array.type)):
        return array.cast(kind)
    items = to_type(array.flatten(), kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return _fixed_lists(array, items, kind)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    wide = pa.types.is_large_list(kind)
    ends = pa.array(np.cumsum([0, *lengths]), pa.int64() if wide else pa.int32())
    made = pa.LargeListArray if wide else pa.ListArray
    return made.from_arrays(ends, items, type=kind, mask=array.is_null())


def _fixed_lists(array: pa.Array, items: pa.Array, kind: pa.DataType) -> pa.Array:
    """Lists of one size; a null one has items too, which `items` has not."""
    there = array.is_valid().to_numpy(zero_copy_only=False)
    starts = np.cumsum(there) - 1
    places = (starts[:, None] * kind.list_size + np.arange(kind.list_size)).ravel()
    all_items = items.take(pa.array(places, mask=~np.repeat(there, kind.list_size)))
    return pa.FixedSizeListArray.from_arrays(all_items, type=kind, mask=array.is_null())
