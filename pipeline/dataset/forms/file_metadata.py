"""What a file says of itself beside its columns, as far as it holds for files of other rows and columns.

Such as GeoParquet's `geo`: its coordinate system belongs to a column, its bounding box to the rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Metadata = Mapping[bytes, bytes]

GEO = b"geo"
# What lists the columns of one file for its readers, who would not see others; and our own.
_OF_ONE_FILE = re.compile(rb"pandas|rag4dmc|.*(schema|spark|avro|writer).*", re.IGNORECASE)
# What GeoParquet says of a column that holds for these rows alone; no types stand for any.
_OF_ROWS = {"bbox", "covering"}
_ANY_TYPE: dict[str, Any] = {"geometry_types": []}


def portable(metadata: Metadata | None) -> dict[bytes, bytes]:
    """What of a file's metadata may be said of other files of such rows."""
    found = {
        key: value for key, value in (metadata or {}).items() if not _OF_ONE_FILE.fullmatch(key)
    }
    geo = _parsed(found.pop(GEO, None))
    if geo is not None:
        geo["columns"] = {
            name: {k: v for k, v in told.items() if k not in _OF_ROWS} | _ANY_TYPE
            for name, told in geo["columns"].items()
        }
        found[GEO] = json.dumps(geo, sort_keys=True).encode()
    return found


def common(one: Metadata | None, other: Metadata | None) -> dict[bytes, bytes]:
    """What two files, or two columns, say alike."""
    theirs = other or {}
    return {key: value for key, value in (one or {}).items() if theirs.get(key) == value}


def of_columns(metadata: Metadata | None, names: Sequence[str]) -> dict[bytes, bytes]:
    """What may be said of a file that has columns of these names."""
    found = dict(metadata or {})
    geo = _parsed(found.pop(GEO, None))
    if geo is not None and geo.get("primary_column") in names:
        geo["columns"] = {name: told for name, told in geo["columns"].items() if name in names}
        found[GEO] = json.dumps(geo, sort_keys=True).encode()
    return found


def _parsed(geo: bytes | None) -> dict[str, Any] | None:
    """GeoParquet's metadata, where it is that."""
    try:
        told = json.loads(geo or b"")
    except ValueError:
        return None
    columns = told.get("columns") if isinstance(told, dict) else None
    known = isinstance(columns, dict) and all(isinstance(c, dict) for c in columns.values())
    return told if known else None
