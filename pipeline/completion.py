"""Completing rows: embed the observed half, retrieve, generate, judge, and write the better half.

A shard is worked through block by block, so that memory holds a block of rows at a time; its part
is written beside and renamed into place before the shard's manifest makes it count.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from generators.base import (
    Candidate,
    CaptionRequest,
    Example,
    ImageRequest,
    derive_seed,
)
from kb.embeddings import Modality, opposite
from kb.retrieval import Hit
from pipeline.catalog import fetch
from pipeline.compaction import layout_of
from pipeline.dataset import Dataset, DatasetError
from pipeline.images import UndecodableImage, decode, encode
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
from selection.scoring import Judged, Judgement

logger = logging.getLogger(__name__)

RowsDone = Callable[[dict[str, int]], None]


@dataclass
class _Row:
    """An incomplete row on its way through the stages."""

    id: str
    item: Any
    reason: str
    first_attempt: int
    hits: list[Hit] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    pseudo: np.ndarray | None = None
    candidates: list[tuple[int, Candidate, Judgement]] = field(default_factory=list)
    chosen: int | None = None
    notes: tuple[str, ...] = ()
    faults: list[str] = field(default_factory=list)
    error: str | None = None


def complete_shard(
    bench: Workbench, plan: ShardPlan, rows_done: RowsDone | None = None
) -> Manifest:
    """Do a shard: write its part, then its manifest.

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
    with writing_part(path, schema) as writer:
        waiting: list[pa.Table] = []
        for start in range(0, len(plan.rows), size):
            block = slice(start, start + size)
            found = _fetch(dataset, plan.rows[block], plan.entries[block])
            table = (
                _pass_through(found, plan.entries[block], plan.reasons[block], schema)
                if plan.missing is None
                else _complete(bench, plan, block, found, schema)
            )
            waiting.append(table)
            outcomes = table["status"].to_pylist()
            statuses += outcomes
            if sum(map(len, waiting)) >= ROW_GROUP_ROWS:
                writer.write_table(pa.concat_tables(waiting), row_group_size=ROW_GROUP_ROWS)
                waiting = []
            if rows_done:
                rows_done(dict(Counter(outcomes)))
        if waiting:
            writer.write_table(pa.concat_tables(waiting), row_group_size=ROW_GROUP_ROWS)
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


def _fetch(
    dataset: Dataset, places: Sequence[tuple[int, int]], entries: Sequence[Entry]
) -> pa.Table:
    """The rows of a block; a file that was written anew during the run is no longer theirs."""
    found = fetch(dataset, places)
    if dataset.has_id and found["id"].to_pylist() != [entry.id for entry in entries]:
        name = dataset.files[places[0][0]].name
        raise DatasetError(f"{name} was changed while the run was under way; start it again")
    return found


def _pass_through(
    found: pa.Table,
    entries: Sequence[Entry],
    reasons: Sequence[str | None],
    schema: pa.Schema,
) -> pa.Table:
    """Rows with both halves as they are, and rows with neither, rejected."""
    columns = _own_columns(found, entries, schema)
    neither = [entry.missing is not None for entry in entries]
    columns["status"] = ["rejected" if lost else "observed" for lost in neither]
    columns["reason"] = list(reasons)
    columns["completion"] = [None] * len(found)
    if any(neither):
        # Bytes that are no image would break whoever decodes the column.
        images = found["image"].to_pylist()
        columns["image"] = [
            None if lost else image for image, lost in zip(images, neither, strict=True)
        ]
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


def _complete(
    bench: Workbench,
    plan: ShardPlan,
    block: slice,
    found: pa.Table,
    schema: pa.Schema,
) -> pa.Table:
    missing = plan.missing
    assert missing is not None
    observed = opposite(missing)
    rows = _rows(bench, plan, block, found, observed)
    good = [row for row in rows if row.error is None]
    if good:
        _retrieve(bench, good, observed)
        for turn in range(bench.config.generation.attempts):
            open_rows = [row for row in good if row.chosen is None and row.error is None]
            if open_rows:
                _attempt(bench, open_rows, missing, turn)
    columns = _own_columns(found, plan.entries[block], schema)
    columns |= _halves(columns, rows, missing, schema)
    columns["status"] = [_status(row) for row in rows]
    columns["reason"] = [_reason(row) for row in rows]
    columns["completion"] = [_completion(bench, plan, row, missing) for row in rows]
    return pa.table(columns, schema=schema)


def _rows(
    bench: Workbench, plan: ShardPlan, block: slice, found: pa.Table, observed: Modality
) -> list[_Row]:
    rows = []
    for entry, cell, reason in zip(
        plan.entries[block],
        found[observed].to_pylist(),
        plan.reasons[block],
        strict=True,
    ):
        row = _Row(entry.id, None, reason or "unknown", entry.first_attempt)
        if observed == "text":
            row.item = cell
        else:
            try:
                row.item = decode(cell["bytes"], bench.config.dataset.max_pixels)
            except UndecodableImage as error:
                row.error = f"the observed image can't be decoded any more: {error}"
        rows.append(row)
    return rows


def _retrieve(bench: Workbench, rows: list[_Row], observed: Modality) -> None:
    """Embed the observed halves, find the pairs that ground them, and predict the missing ones."""
    knowledge = bench.knowledge_base
    embeddings = bench.embed([row.item for row in rows], observed)
    if not knowledge.mapping.constant_[observed]:
        for row, pseudo in zip(rows, knowledge.pseudo(embeddings, observed), strict=True):
            row.pseudo = pseudo
    if not bench.config.generation.grounded:
        return
    found = knowledge.retriever.retrieve(embeddings, observed, ids=[row.id for row in rows])
    pairs = bench.example_pairs(
        [hit.row for hits in found for hit in hits], with_images=observed == "text"
    )
    for row, hits in zip(rows, found, strict=True):
        row.hits = hits
        row.examples = [dict(pairs[hit.row]) for hit in hits]
        for example in row.examples:
            example["caption"] = _nearest_caption(bench, example["text"], row, observed)


def _nearest_caption(
    bench: Workbench, captions: Sequence[str], row: _Row, observed: Modality
) -> str:
    """Of a pair's captions the one nearest to the row's text, pseudo or own."""
    if len(captions) == 1:
        return captions[0]
    target = row.pseudo if observed == "image" else bench.embed([row.item], "text")[0]
    if target is None:
        return captions[0]
    embeddings = bench.encoder.encode(list(captions), "text")
    return captions[int(np.argmax(embeddings @ target))]


def _attempt(bench: Workbench, rows: list[_Row], missing: Modality, turn: int) -> None:
    """One round: n candidates a row, judged; the best is chosen where one holds."""
    generation, seed = bench.config.generation, bench.config.run.seed
    requests: list[Any] = []
    for row in rows:
        attempt = row.first_attempt + turn
        seeds = tuple(derive_seed(seed, row.id, n, attempt) for n in range(generation.n))
        examples = tuple(
            Example(example["id"], example["caption"], example.get("image"))
            for example in row.examples
        )
        if missing == "text":
            requests.append(CaptionRequest(row.id, row.item, examples, seeds))
        else:
            requests.append(ImageRequest(row.id, row.item[0], examples, seeds))
    answers = bench.generator(missing).generate(requests)
    made = [c for answer in answers for c in answer.candidates]
    embeddings = _embed_candidates(bench, made, missing)
    start = 0
    for row, answer in zip(rows, answers, strict=True):
        if answer.error is not None:
            row.error = answer.error
            continue
        own = embeddings[start : start + len(answer.candidates)]
        start += len(answer.candidates)
        judged = _judge(bench, row, answer.candidates, own, missing)
        offset = len(row.candidates)
        attempt = row.first_attempt + turn
        row.candidates += [
            (attempt, candidate, judgement)
            for candidate, judgement in zip(answer.candidates, judged.judgements, strict=True)
        ]
        row.notes = judged.notes
        if judged.chosen is None:
            row.faults.append(f"attempt {attempt}: {judged.reason}")
        else:
            row.chosen = offset + judged.chosen


def _embed_candidates(
    bench: Workbench, candidates: Sequence[Candidate], missing: Modality
) -> np.ndarray:
    """Unit embeddings [n, d]; zeros stand for candidates that are nothing to embed."""
    embeddings = np.zeros((len(candidates), bench.encoder.dimension(missing)), np.float32)
    if missing == "text":
        items: list[Any] = [candidate.text for candidate in candidates]
        real = [i for i, text in enumerate(items) if text and text.strip()]
    else:
        items = [candidate.image for candidate in candidates]
        real = [i for i, image in enumerate(items) if image is not None]
    if real:
        embeddings[real] = bench.encoder.encode([items[i] for i in real], missing)
    return embeddings


def _judge(
    bench: Workbench,
    row: _Row,
    candidates: Sequence[Candidate],
    embeddings: np.ndarray,
    missing: Modality,
) -> Judged:
    if missing == "text":
        references = [caption for example in row.examples for caption in example["text"]]
        return bench.selector.judge_captions(
            [candidate.text or "" for candidate in candidates],
            embeddings,
            row.pseudo,
            references,
            [candidate.prompt for candidate in candidates],
        )
    return bench.selector.judge_images(
        [candidate.image for candidate in candidates], embeddings, row.pseudo
    )


def _status(row: _Row) -> str:
    if row.error is not None:
        return "failed"
    return "rejected" if row.chosen is None else "completed"


def _reason(row: _Row) -> str:
    if row.error is not None:
        return f"{row.reason}; {row.error}"
    return row.reason if row.chosen is not None else "; ".join([row.reason, *row.faults])


def _halves(
    columns: dict[str, Any], rows: Sequence[_Row], missing: Modality, schema: pa.Schema
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


def _completion(bench: Workbench, plan: ShardPlan, row: _Row, missing: Modality) -> dict[str, Any]:
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
