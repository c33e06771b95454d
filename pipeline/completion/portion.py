"""Some rows of a shard: as they were read, and as rows of the completed dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kb.embeddings import Modality
from pipeline.completion.block import Block, Row
from pipeline.completion.workbench import Workbench
from pipeline.config.config import GENERATORS
from pipeline.dataset.images import encode
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


def completed(bench: Workbench, plan: ShardPlan, portion: Portion, schema: pa.Schema) -> pa.Table:
    """Rows that went through the generator, with what it took."""
    block = portion.block
    assert block is not None
    columns = _own_columns(portion.found, plan.entries[portion.span], schema)
    columns |= _halves(columns, block.rows, block.missing, schema)
    columns["status"] = [_status(row) for row in block.rows]
    columns["reason"] = [_reason(row) for row in block.rows]
    columns["completion"] = [_completion(bench, plan, row, block.missing) for row in block.rows]
    return pa.table(columns, schema=schema)


def _status(row: Row) -> str:
    if row.error is not None:
        return "failed"
    return "rejected" if row.chosen is None else "completed"


def _reason(row: Row) -> str:
    if row.error is not None:
        return f"{row.reason}; {row.error}"
    return row.reason if row.chosen is not None else "; ".join([row.reason, *row.faults])


def _halves(
    columns: dict[str, Any], rows: Sequence[Row], missing: Modality, schema: pa.Schema
) -> dict[str, Any]:
    """The column of the missing half: what was chosen, or null."""
    chosen = [None if row.chosen is None else row.candidates[row.chosen][1] for row in rows]
    if missing == "image":
        return {
            "image": [
                None
                if candidate is None or candidate.image is None
                else {"bytes": encode(candidate.image), "path": None}
                for candidate in chosen
            ]
        }
    texts = [None if candidate is None else candidate.text for candidate in chosen]
    if pa.types.is_list(schema.field("text").type):
        return {"text": [None if text is None else [text] for text in texts]}
    return {"text": texts}


def _completion(bench: Workbench, plan: ShardPlan, row: Row, missing: Modality) -> dict[str, Any]:
    """The provenance of a row: what made it, from which pairs, out of which candidates."""
    part = bench.config.generator_part(missing)
    models = bench.models(part)
    main = next(iter(models.values()), None)
    best = None if row.chosen is None else row.candidates[row.chosen]
    return {
        "generator": part.kind,
        "model": None if main is None else main.name,
        "revision": None if main is None else main.revision,
        "prompt": best[1].prompt if best else None,
        "seed": best[1].seed if best else None,
        "attempt": best[0] if best else None,
        "kb_version": bench.knowledge_base.version,
        "examples": [
            {
                "id": example["id"],
                "source": example["source"],
                "licence": example["licence"],
                "text": example["caption"],
                "intra": hit.intra,
                "cross": hit.cross,
                "score": hit.score,
            }
            for hit, example in zip(row.hits, row.examples, strict=True)
        ],
        "candidates": [
            {
                "text": candidate.text,
                "seed": candidate.seed,
                "attempt": attempt,
                "cosine": judgement.cosine,
                "bleu": judgement.bleu,
                "niqe": judgement.niqe,
                "score": judgement.score,
                "valid": judgement.valid,
                "reason": judgement.reason,
                "notes": [*candidate.notes, *row.notes],
            }
            for attempt, candidate, judgement in row.candidates
        ],
        "chosen": row.chosen,
        "score": best[2].score if best else None,
        "run_id": plan.run_id,
    }
