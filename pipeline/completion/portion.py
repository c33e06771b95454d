"""Some rows of a shard on their way: read, answered, judged, and as rows of the completed dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from generators.asked import Asked
from generators.base import Generated
from kb.embeddings import opposite
from pipeline.completion.block import Block
from pipeline.completion.learned import Learned
from pipeline.completion.record import Recorder, reason, status
from pipeline.completion.written import encoded
from pipeline.config.config import GENERATORS, Config
from pipeline.dataset.catalog import fetch
from pipeline.dataset.dataset import Dataset, DatasetError
from pipeline.dataset.schema import completed_schema
from pipeline.dataset.sources import Sources
from pipeline.knowledge.seen import Knowledge
from pipeline.ledger.ledger import Entry
from pipeline.ledger.plan import ShardPlan
from pipeline.models.loaded import LoadedModels


@dataclass(frozen=True)
class Parts:
    """What rows meet on their way."""

    config: Config
    sources: Sources
    models: LoadedModels
    knowledge: Knowledge

    @property
    def folder(self) -> Path:
        """Where what is done lies, and its ledger."""
        return self.config.folder

    @property
    def schema(self) -> pa.Schema:
        """Of the parts that are written."""
        return self.row_schema

    @property
    def row_schema(self) -> pa.Schema:
        """Of the completed dataset."""
        dataset = self.sources.dataset
        return completed_schema(dataset.text_is_list, dataset.extra_schema)

    def portion(self, plan: ShardPlan, span: slice) -> Portion:
        """Some rows of a shard."""
        return Portion(self, plan, span)


class Portion:
    """Some rows of a shard, brought from one stage to the next by whoever holds it.

    Parameters
    ----------
    parts : Parts
    plan : ShardPlan
        The shard's.
    span : slice
        Its rows of the shard.

    Attributes
    ----------
    table : pyarrow.Table or None
        Rows of the completed dataset, once they are judged.
    """

    def __init__(self, parts: Parts, plan: ShardPlan, span: slice) -> None:
        self.plan = plan
        self.span = span
        self.table: pa.Table | None = None
        self._parts = parts
        self._found: pa.Table | None = None
        self._block: Block | None = None
        self._answers = 0
        self._begun = False

    @property
    def entries(self) -> Sequence[Entry]:
        """Its rows, as they were planned."""
        return self.plan.entries[self.span]

    @property
    def nbytes(self) -> int:
        """Bytes that are held, but for pictures on their way to a generator."""
        # Another thread may be at it.
        tables = [table for table in (self._found, self.table) if table is not None]
        block = self._block
        examples = 0 if block is None else block.example_bytes()
        return sum(table.nbytes for table in tables) + examples + self._answers

    def read(self) -> None:
        """Read the rows, and ground those that a generator is to complete."""
        parts, plan = self._parts, self.plan
        self._found = _fetch(parts.sources.dataset, plan.rows[self.span], self.entries)
        if plan.missing not in parts.config.made:
            return
        cells = self._found[opposite(plan.missing)].to_pylist()
        block = Block(
            parts.config,
            parts.models,
            parts.knowledge,
            plan.missing,
            self.entries,
            cells,
            plan.reasons[self.span],
            plan.refused,
            Learned.parse(plan.learned),
        )
        block.ground()
        self._block = block

    def ask(self) -> Asked:
        """Ask the generator for what is still open."""
        return Asked.answered([]) if self._block is None else self._block.ask()

    def hold(self, answers: Sequence[Generated]) -> int:
        """These are to be judged; how many rows they are the first of."""
        images = (c.image for answer in answers for c in answer.candidates if c.image is not None)
        self._answers += sum(3 * image.width * image.height for image in images)
        new, self._begun = not self._begun, True
        return len(self._block.rows) if new and self._block is not None else 0

    def judge(self, answers: Sequence[Generated]) -> bool:
        """Judge what the generator gave; whether all is said, or it is wanted once more."""
        found, block = self._found, self._block
        assert found is not None
        if block is None:
            self.table = pass_through(self.plan, self.span, found, self._parts.row_schema)
        else:
            block.judge(answers)
            if block.open_rows():
                return False
            self.table = self._completed(found, block)
        self._found = self._block = None
        self._answers = 0
        return True

    def _completed(self, found: pa.Table, block: Block) -> pa.Table:
        """The rows that went through the generator."""
        parts = self._parts
        recorder = Recorder(parts.config, parts.models, parts.knowledge, self.plan.run_id)
        return completed(recorder, self.entries, found, block, parts.row_schema)

    def ended(self) -> Iterable[Entry]:
        """The rows with their outcomes."""
        assert self.table is not None
        for entry, outcome in zip(self.entries, self.table["status"].to_pylist(), strict=True):
            yield replace(entry, status=outcome)


def pass_through(plan: ShardPlan, span: slice, found: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows with both halves as they are; rejected, those with neither or that none completes."""
    entries = plan.entries[span]
    columns = _own_columns(found, entries, schema)
    columns["status"] = ["rejected" if entry.missing else "observed" for entry in entries]
    columns["reason"] = list(plan.reasons[span])
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


def completed(
    recorder: Recorder,
    entries: Sequence[Entry],
    found: pa.Table,
    block: Block,
    schema: pa.Schema,
) -> pa.Table:
    """Rows that went through the generator, with what it took."""
    columns = _own_columns(found, entries, schema)
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
