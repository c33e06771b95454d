"""Completing a shard: block by block, so that memory holds a few rows of it at a time.

Its part is written beside and renamed into place before the shard's manifest makes it count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from generators.base import Generated
from kb.embeddings import Modality, opposite
from pipeline.block import Block, Row
from pipeline.catalog import fetch
from pipeline.compaction import layout_of
from pipeline.config import GENERATORS
from pipeline.dataset import Dataset, DatasetError
from pipeline.images import encode
from pipeline.ledger import (
    Entry,
    Ledger,
    Manifest,
    entry_table,
    part_name,
    shard_name,
    writing_part,
)
from pipeline.plan import ShardPlan
from pipeline.schema import ROW_GROUP_ROWS, completed_schema
from pipeline.workbench import Workbench

RowsDone = Callable[[dict[str, int]], None]


@dataclass
class Portion:
    """Some rows of a shard as they were read, and, where a half is missing, on their way."""

    span: slice
    found: pa.Table
    block: Block | None = None


def complete_shard(
    bench: Workbench, plan: ShardPlan, rows_done: RowsDone | None = None
) -> Manifest:
    """Do a shard: write its part, then its manifest.

    While the generator works on a block, another thread judges and writes the block before it, and
    reads and grounds the one after it: three blocks are in memory at most. All else that has
    models or state is touched by that thread alone.

    Parameters
    ----------
    bench
    plan
    rows_done
        Called after each block with the outcomes of its rows.
    """
    dataset = bench.dataset
    ledger = Ledger(bench.config.folder)
    schema = completed_schema(dataset.text_is_list, dataset.extra_schema)
    path = ledger.parts / part_name(plan.number)
    statuses: list[str] = []
    size = bench.config.run.block_size
    spans = [slice(start, start + size) for start in range(0, len(plan.rows), size)]
    waiting: list[pa.Table] = []
    with writing_part(path, schema) as writer, ThreadPoolExecutor(1) as beside:

        def judge(portion: Portion, answers: Sequence[Generated]) -> dict[str, int] | None:
            """Judge and write; the outcomes, or None when the generator is wanted once more."""
            if portion.block is not None:
                portion.block.judge(answers)
                if portion.block.open_rows():
                    return None
                table = _completed(bench, plan, portion, schema)
            else:
                table = _pass_through(plan, portion, schema)
            waiting.append(table)
            if sum(map(len, waiting)) >= ROW_GROUP_ROWS:
                write()
            outcomes = table["status"].to_pylist()
            statuses.extend(outcomes)
            return dict(Counter(outcomes))

        def write() -> None:
            writer.write_table(pa.concat_tables(waiting), row_group_size=ROW_GROUP_ROWS)
            waiting.clear()

        def settle(portion: Portion, judged: Future[dict[str, int] | None]) -> None:
            while (outcomes := judged.result()) is None:
                judged = beside.submit(judge, portion, _generate(portion))
            if rows_done:
                rows_done(outcomes)

        ahead = beside.submit(_prepare, bench, plan, spans[0])
        before: tuple[Portion, Future[dict[str, int] | None]] | None = None
        for number in range(len(spans)):
            portion = ahead.result()
            if number + 1 < len(spans):
                ahead = beside.submit(_prepare, bench, plan, spans[number + 1])
            answers = _generate(portion)
            if before is not None:
                settle(*before)
            before = portion, beside.submit(judge, portion, answers)
        if before is not None:
            settle(*before)
        if waiting:
            write()
    manifest = Manifest(
        shard=shard_name(plan.number),
        part=path.name,
        size=path.stat().st_size,
        run_id=plan.run_id,
        settings=plan.settings,
        layout=layout_of(schema),
        rows=entry_table(
            replace(entry, status=status)
            for entry, status in zip(plan.entries, statuses, strict=True)
        ),
    )
    ledger.commit(manifest)
    return manifest


def _prepare(bench: Workbench, plan: ShardPlan, span: slice) -> Portion:
    """Read some rows, and ground those that miss a half."""
    entries = plan.entries[span]
    found = _fetch(bench.dataset, plan.rows[span], entries)
    if plan.missing not in bench.config.made:
        return Portion(span, found)
    cells = found[opposite(plan.missing)].to_pylist()
    block = Block(bench, plan.missing, entries, cells, plan.reasons[span], plan.refused)
    block.ground()
    return Portion(span, found, block)


def _generate(portion: Portion) -> list[Generated]:
    return [] if portion.block is None else portion.block.generate()


def _fetch(
    dataset: Dataset, places: Sequence[tuple[int, int]], entries: Sequence[Entry]
) -> pa.Table:
    """The rows of a block, with the halves that they had when the run began.

    Raises
    ------
    DatasetError
        A file was changed since, or an image that a row names has gone.
    """
    found = fetch(dataset, places)
    ids = found["id"].to_pylist() if dataset.has_id else [entry.id for entry in entries]
    # A row's reason is null where there are bytes, if not an image, and where there is a text.
    lost = {half: found[f"{half}_reason"].to_pylist() for half in ("image", "text")}
    for place, (entry, row_id) in enumerate(zip(entries, ids, strict=True)):
        halves = [half for half in lost if entry.missing not in (half, "both")]
        reason = next((lost[half][place] for half in halves if lost[half][place]), None)
        if row_id != entry.id or reason:
            name = dataset.files[places[place][0]].name
            why = f" (row {entry.id!r}: {reason})" if reason else ""
            raise DatasetError(
                f"{name} was changed while the run was under way{why}; start it again"
            )
    return found


def _pass_through(plan: ShardPlan, portion: Portion, schema: pa.Schema) -> pa.Table:
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
        images = zip(found["image"].to_pylist(), lost, strict=True)
        columns["image"] = [None if gone else image for image, gone in images]
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
        extra = found["extra"].combine_chunks()
        for name in extra.type.names:
            columns[name] = extra.field(name)
    return columns


def _texts(found: pa.Table, schema: pa.Schema) -> Any:
    texts = found["text"]
    if pa.types.is_list(schema.field("text").type):
        return texts
    return [text[0] if text else None for text in texts.to_pylist()]


def _completed(bench: Workbench, plan: ShardPlan, portion: Portion, schema: pa.Schema) -> pa.Table:
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
