"""Some rows of a shard: as they were read, and as rows of the completed dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.completion.block import Block
from pipeline.completion.record import Recorder, reason, status
from pipeline.completion.written import encoded
from pipeline.config.config import GENERATORS
from pipeline.ledger.ledger import Entry
from pipeline.ledger.plan import ShardPlan


@dataclass
class Portion:
    """Some rows of a shard as they were read, and, where a half is missing, on their way."""

    span: slice
    found: pa.Table
    block: Block | None = None


def pass_through(plan: ShardPlan, portion: Portion, schema: pa.Schema) -> pa.Table:
    """Rows with both halves as they are; rejected, those with neither or that none completes."""
    found, entries = portion.found, plan.entries[portion.span]
    columns = _own_columns(found, entries, schema)
    columns["status"] = ["rejected" if entry.missing else "observed" for entry in entries]
    columns["reason"] = list(plan.reasons[portion.span])
    if plan.missing is not None:
        why = f"the config has no {GENERATORS[plan.missing]}"
        columns["reason"] = [f"{reason}; {why}" for reason in columns["reason"]]
    columns["completion"] = [None] * len(found)
    lost = [entry.missing in ("image", "both") for entry in entries]
    if any(lost):
        # Bytes that are no image would break whoever decodes the column.
        images = found["image"]
        columns["image"] = pc.if_else(pa.array(lost), pa.scalar(None, images.type), images)
    return pa.table(columns, schema=schema)


def _own_columns(found: pa.Table, entries: Sequence[Entry], schema: pa.Schema) -> dict[str, Any]:
    """The columns that are the same for every outcome."""
    columns: dict[str, Any] = {
        "id": [entry.id for entry in entries],
        "image": found["image"],
        "text": _texts(found, schema),
        "missing": [None if entry.missing == "both" else entry.missing for entry in entries],
    }
    if "extra" in found.column_names:
        extra = found["extra"]
        columns |= dict(zip((field.name for field in extra.type), extra.flatten(), strict=True))
    return columns


def _texts(found: pa.Table, schema: pa.Schema) -> Any:
    texts = found["text"]
    if pa.types.is_list(schema.field("text").type):
        return texts
    return [text[0] if text else None for text in texts.to_pylist()]


def completed(recorder: Recorder, plan: ShardPlan, portion: Portion, schema: pa.Schema) -> pa.Table:
    """Rows that went through the generator, with what it took."""
    block = portion.block
    assert block is not None
    columns = _own_columns(portion.found, plan.entries[portion.span], schema)
    columns |= _halves(block, schema)
    columns["status"] = [status(row) for row in block.rows]
    columns["reason"] = [reason(row) for row in block.rows]
    columns["completion"] = [recorder.completion(row, block.missing) for row in block.rows]
    return pa.table(columns, schema=schema)


def _halves(block: Block, schema: pa.Schema) -> dict[str, Any]:
    """The column of the missing half: what was chosen, or null."""
    chosen = [None if row.best is None else row.best.candidate for row in block.rows]
    format = block.image_format
    if block.missing == "image":
        return {
            "image": [
                None
                if candidate is None or candidate.image is None
                else {"bytes": encoded(candidate, format), "path": None}
                for candidate in chosen
            ]
        }
    texts = [None if candidate is None else candidate.text for candidate in chosen]
    if pa.types.is_list(schema.field("text").type):
        return {"text": [None if text is None else [text] for text in texts]}
    return {"text": texts}
