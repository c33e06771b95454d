"""The completed dataset's one explicit schema: what every row of the output holds.

The `huggingface` metadata in each file makes `datasets.load_dataset("parquet")` decode the image
struct, and keeps what the input's says of other columns; what it does not name `datasets` takes by its
Arrow type. The `rag4dmc` metadata carries the schema's version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 5
ROW_GROUP_ROWS = 100
# What is read at once by whoever reads a row group; of more than 2 GB Arrow would read none.
ROW_GROUP_BYTES = 256 << 20

STATUSES = ("observed", "completed", "rejected", "failed")

HUGGINGFACE = b"huggingface"
# Where the schema's version stands.
OWN = b"rag4dmc"

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

# A pair that the generator was shown: `text` is its caption that is nearest to the row, and `shown` are
# the halves, "text" or "image", that the generator had of it; `picture` is the digest
# (`pipeline.storage.digests.digest`) of the file of its picture, as the knowledge base had it.
EXAMPLE = pa.struct(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("text", pa.string()),
        ("shown", pa.list_(pa.string())),
        ("picture", pa.string()),
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

# `second_look`: it was drawn once more for a row of which little was expected, from other examples.
CANDIDATE = pa.struct(
    [
        ("text", pa.string()),
        ("seed", pa.int64()),
        ("attempt", pa.int32()),
        ("second_look", pa.bool_()),
        ("cosine", pa.float32()),
        ("bleu", pa.float32()),
        ("niqe", pa.float32()),
        ("score", pa.float32()),
        ("agreement", pa.float32()),
        ("hubness", pa.float32()),
        ("valid", pa.bool_()),
        ("reason", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("examples", pa.list_(pa.string())),
    ]
)

# `confidence` is the expected cosine to the true half, and `gain_probability` the probability that it is
# higher than that of the median random half: see `pipeline.completion.confidence`. Both are null where the
# run's check held too few pairs. `second_look`: what was chosen is of a second look; null where nothing was.
COMPLETION = pa.struct(
    [
        ("generator", pa.string()),
        ("model", pa.string()),
        ("revision", pa.string()),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("attempt", pa.int32()),
        ("second_look", pa.bool_()),
        ("kb_version", pa.string()),
        ("examples", pa.list_(EXAMPLE)),
        ("dropped", pa.list_(DROPPED)),
        ("candidates", pa.list_(CANDIDATE)),
        ("chosen", pa.int32()),
        ("score", pa.float32()),
        ("confidence", pa.float32()),
        ("gain_probability", pa.float32()),
        ("run_id", pa.string()),
        ("image_format", pa.string()),
    ]
)

OWN_COLUMNS = ("id", "image", "text", "status", "missing", "reason", "completion")


def features_of(schema: pa.Schema) -> dict[str, Any]:
    """What `datasets` knows of a schema's columns beyond their types, such as the names of classes."""
    try:
        told = json.loads((schema.metadata or {})[HUGGINGFACE])["info"]["features"]
    except (KeyError, TypeError, ValueError):  # none, or another program's
        return {}
    return told if isinstance(told, dict) else {}


def with_features(schema: pa.Schema, features: Mapping[str, Any]) -> pa.Schema:
    """A schema that tells `datasets` so of its columns."""
    if not features:
        return schema
    told = json.dumps({"info": {"features": features}})
    return schema.with_metadata({**(schema.metadata or {}), HUGGINGFACE: told.encode()})


def completed_schema(text_is_list: bool, extra: pa.Schema | None = None) -> pa.Schema:
    """The schema of `completed/part-*.parquet`.

    Parameters
    ----------
    text_is_list
        Whether the dataset's text column holds lists of captions; the output's then does too.
    extra
        The pass-through columns, in the dataset's order, what `datasets` knows of them and what the
        source says besides.

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
    told = {k: v for k, v in ((extra and extra.metadata) or {}).items() if k != HUGGINGFACE}
    version = {**told, OWN: json.dumps({"schema_version": SCHEMA_VERSION}).encode()}
    features = {"image": {"_type": "Image"}} | (features_of(extra) if extra else {})
    return with_features(pa.schema(fields, metadata=version), features)


def row_group_rows(table: pa.Table) -> int:
    """Rows of a row group of such rows: about a hundred, fewer where their images are large."""
    fitting = ROW_GROUP_BYTES * len(table) // max(1, table.nbytes)
    return min(ROW_GROUP_ROWS, max(1, fitting))
