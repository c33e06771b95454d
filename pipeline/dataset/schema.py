"""The completed dataset's one explicit schema: what every row of the output holds.

The `huggingface` metadata in each file makes `datasets.load_dataset("parquet")` decode the image
struct; what it does not name `datasets` takes by its Arrow type. The `rag4dmc` metadata carries the
schema's version.
"""

from __future__ import annotations

import json

import pyarrow as pa

SCHEMA_VERSION = 3
ROW_GROUP_ROWS = 100
# What is read at once by whoever reads a row group; of more than 2 GB Arrow would read none.
ROW_GROUP_BYTES = 256 << 20

STATUSES = ("observed", "completed", "rejected", "failed")

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

# A pair that the generator was shown: `text` is its caption that is nearest to the row, and `shown` are
# the halves, "text" or "image", that the generator had of it.
EXAMPLE = pa.struct(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("text", pa.string()),
        ("shown", pa.list_(pa.string())),
        ("intra", pa.float32()),
        ("cross", pa.float32()),
        ("score", pa.float32()),
    ]
)

# A retrieved pair that the generator was not shown, and why.
DROPPED = pa.struct(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("reason", pa.string()),
    ]
)

CANDIDATE = pa.struct(
    [
        ("text", pa.string()),
        ("seed", pa.int64()),
        ("attempt", pa.int32()),
        ("cosine", pa.float32()),
        ("bleu", pa.float32()),
        ("niqe", pa.float32()),
        ("score", pa.float32()),
        ("valid", pa.bool_()),
        ("reason", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("examples", pa.list_(pa.string())),
    ]
)

COMPLETION = pa.struct(
    [
        ("generator", pa.string()),
        ("model", pa.string()),
        ("revision", pa.string()),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("attempt", pa.int32()),
        ("kb_version", pa.string()),
        ("examples", pa.list_(EXAMPLE)),
        ("dropped", pa.list_(DROPPED)),
        ("candidates", pa.list_(CANDIDATE)),
        ("chosen", pa.int32()),
        ("score", pa.float32()),
        ("run_id", pa.string()),
        ("image_format", pa.string()),
    ]
)

OWN_COLUMNS = ("id", "image", "text", "status", "missing", "reason", "completion")


def completed_schema(text_is_list: bool, extra: pa.Schema | None = None) -> pa.Schema:
    """The schema of `completed/part-*.parquet`.

    Parameters
    ----------
    text_is_list
        Whether the dataset's text column holds lists of captions; the output's then does too.
    extra
        The pass-through columns, in the dataset's order.

    Raises
    ------
    ValueError
        If a pass-through column has the name of one of the output's own columns.
    """
    passed = list(extra or ())
    for field in passed:
        if field.name in OWN_COLUMNS:
            raise ValueError(
                f"dataset column {field.name!r} has the name of an output column;"
                f" rename it or leave it out (own columns: {', '.join(OWN_COLUMNS)})"
            )
    fields = [
        pa.field("id", pa.string()),
        pa.field("image", IMAGE),
        pa.field("text", pa.list_(pa.string()) if text_is_list else pa.string()),
        *passed,
        pa.field("status", pa.string()),
        pa.field("missing", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("completion", COMPLETION),
    ]
    return pa.schema(
        fields,
        metadata={
            "huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}}),
            "rag4dmc": json.dumps({"schema_version": SCHEMA_VERSION}),
        },
    )


def row_group_rows(table: pa.Table) -> int:
    """Rows of a row group of such rows: about a hundred, fewer where their images are large."""
    fitting = ROW_GROUP_BYTES * len(table) // max(1, table.nbytes)
    return min(ROW_GROUP_ROWS, max(1, fitting))
