"""Completing a shard: block by block, so that memory holds a few rows of it at a time.

Its part is written beside and renamed into place before the shard's manifest makes it count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from generators.base import Generated
from generators.service import ServiceRefused
from kb.embeddings import opposite
from pipeline.completion.block import Block
from pipeline.completion.portion import Portion, completed, pass_through
from pipeline.completion.record import Recorder
from pipeline.config.config import Config
from pipeline.dataset.catalog import fetch
from pipeline.dataset.dataset import Dataset, DatasetError
from pipeline.dataset.schema import completed_schema, row_group_rows
from pipeline.dataset.sources import Sources
from pipeline.knowledge.standing import StandingKnowledge
from pipeline.ledger.compaction import layout_of
from pipeline.ledger.ledger import (
    Entry,
    Ledger,
    Manifest,
    entry_table,
    part_name,
    shard_name,
    writing_part,
)
from pipeline.ledger.plan import ShardPlan
from pipeline.models.loaded import LoadedModels

RowsDone = Callable[[dict[str, int]], None]


def complete_shard(
    config: Config,
    sources: Sources,
    models: LoadedModels,
    knowledge: StandingKnowledge,
    plan: ShardPlan,
    rows_done: RowsDone | None = None,
    answered: Callable[[int], None] | None = None,
) -> Manifest:
    """Do a shard: write its part, then its manifest.

    While the generator works on a block, another thread judges and writes the block before it, and
    reads and grounds the one after it: three blocks are in memory at most. All else that has
    models or state is touched by that thread alone.

    Parameters
    ----------
    config, sources, models, knowledge
    plan
    rows_done
        Called after each block with the outcomes of its rows.
    answered
        Called with how many rows the generator has answered, a block before those are done.

    Raises
    ------
    ServiceRefused
        The generator's server takes no more requests. The blocks before are a shard of their own.
    """
    dataset = sources.dataset
    ledger = Ledger(config.folder)
    recorder = Recorder(config, models, knowledge, plan.run_id)
    schema = completed_schema(dataset.text_is_list, dataset.extra_schema)
    path = ledger.parts / part_name(plan.number)
    statuses: list[str] = []
    size = config.run.block_size
    spans = [slice(start, start + size) for start in range(0, len(plan.rows), size)]
    waiting: list[pa.Table] = []
    stopped: ServiceRefused | None = None
    with writing_part(path, schema) as writer, ThreadPoolExecutor(1) as beside:

        def judge(portion: Portion, answers: Sequence[Generated]) -> dict[str, int] | None:
            """Judge and write; the outcomes, or None when the generator is wanted once more."""
            if portion.block is not None:
                portion.block.judge(answers)
                if portion.block.open_rows():
                    return None
                table = completed(recorder, plan, portion, schema)
            else:
                table = pass_through(plan, portion, schema)
            waiting.append(table)
            write(all_of_it=False)
            outcomes = table["status"].to_pylist()
            statuses.extend(outcomes)
            return dict(Counter(outcomes))

        def write(all_of_it: bool = True) -> None:
            together = pa.concat_tables(waiting)
            rows = row_group_rows(together)
            if all_of_it or len(together) >= rows:
                writer.write_table(together, row_group_size=rows)
                waiting.clear()

        def settle(portion: Portion, judged: Future[dict[str, int] | None]) -> None:
            while (outcomes := judged.result()) is None:
                judged = beside.submit(judge, portion, _generate(portion))
            if rows_done:
                rows_done(outcomes)

        def prepare(span: slice) -> Portion:
            """Read some rows, and ground those that miss a half."""
            entries = plan.entries[span]
            found = _fetch(dataset, plan.rows[span], entries)
            if plan.missing not in config.made:
                return Portion(span, found)
            cells = found[opposite(plan.missing)].to_pylist()
            block = Block(
                config,
                models,
                knowledge,
                plan.missing,
                entries,
                cells,
                plan.reasons[span],
                plan.refused,
            )
            block.ground()
            return Portion(span, found, block)

        ahead = beside.submit(prepare, spans[0])
        before: tuple[Portion, Future[dict[str, int] | None]] | None = None
        try:
            for number in range(len(spans)):
                portion = ahead.result()
                if number + 1 < len(spans):
                    ahead = beside.submit(prepare, spans[number + 1])
                answers = _generate(portion)
                if answered and portion.block is not None:
                    answered(len(portion.block.rows))
                if before is not None:
                    settle(*before)
                before = portion, beside.submit(judge, portion, answers)
            if before is not None:
                settle(*before)
        except ServiceRefused as error:
            if before is not None:
                before[1].result()
            if not statuses:
                raise
            stopped = error
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
            for entry, status in zip(plan.entries, statuses, strict=stopped is None)
        ),
    )
    ledger.commit(manifest)
    if stopped is not None:
        raise stopped
    return manifest


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
    ids = found["id"].to_pylist()
    # A row's reason is null where there are bytes, if not an image, and where there is a text.
    lost = {half: found[f"{half}_reason"].to_pylist() for half in ("image", "text")}
    for place, (entry, row_id) in enumerate(zip(entries, ids, strict=True)):
        halves = [half for half in lost if entry.missing not in (half, "both")]
        reason = next((lost[half][place] for half in halves if lost[half][place]), None)
        if row_id not in (None, entry.id) or reason:
            name = dataset.files[places[place][0]].name
            why = f" (row {entry.id!r}: {reason})" if reason else ""
            raise DatasetError(
                f"{name} was changed while the run was under way{why}; start it again"
            )
    return found
