"""Checked pairs on their way: rows like all others, but that what is hidden of them is known at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kb.embeddings import Modality
from pipeline.check.apart import KnowledgeApart
from pipeline.completion.block import Block
from pipeline.completion.evidence import evidence_of, likeness
from pipeline.completion.portion import Parts, Portion
from pipeline.completion.row import Row
from pipeline.dataset.images import UndecodableImage, decode
from pipeline.ledger.plan import ShardPlan
from pipeline.models.item_errors import embed_each

# Of a checked pair the cosines, by the run's encoder, of its true half to what was `chosen`, to that of
# the `example` (the best retrieved pair), to random halves in the mean and in the `middle`, and to each
# candidate, in their order; the candidates' `likeness` to one another; and the `evidence` of the chosen one;
# the same of what each of its `looks` has chosen, with its number among the candidates.
# Null and NaN where there is none.
CHECK = pa.struct(
    [
        ("chosen", pa.float32()),
        ("example", pa.float32()),
        ("random", pa.float32()),
        ("middle", pa.float32()),
        ("candidates", pa.list_(pa.float32())),
        ("likeness", pa.list_(pa.list_(pa.float32()))),
        ("evidence", pa.list_(pa.float64())),
        (
            "looks",
            pa.list_(
                pa.struct(
                    [
                        ("place", pa.int32()),
                        ("chosen", pa.float32()),
                        ("evidence", pa.list_(pa.float64())),
                    ]
                )
            ),
        ),
    ]
)


@dataclass(frozen=True)
class CheckedParts(Parts):
    """What checked pairs of one half meet on their way.

    Attributes
    ----------
    apart : KnowledgeApart
        Their `knowledge`.
    half : {"text", "image"}
        What is hidden of them.
    """

    apart: KnowledgeApart
    half: Modality

    @property
    def folder(self) -> Path:
        """Where what is done lies, and its ledger."""
        return self.config.folder / "check" / self.half

    @property
    def schema(self) -> pa.Schema:
        """That of the completed dataset, with the column `check`."""
        return self.row_schema.append(pa.field("check", CHECK))

    def portion(self, plan: ShardPlan, span: slice) -> Portion:
        """Some rows of a shard."""
        return CheckedPortion(self, plan, span)


class CheckedPortion(Portion):
    """Some checked pairs of a shard."""

    _parts: CheckedParts

    def _completed(self, found: pa.Table, block: Block) -> pa.Table:
        compared = self._compared(found, block)
        rows = super()._completed(found, block)
        return rows.append_column(pa.field("check", CHECK), pa.array(compared, CHECK))

    def _compared(self, found: pa.Table, block: Block) -> list[dict[str, Any] | None]:
        """What each row's half is like the truth."""
        parts, missing = self._parts, block.missing
        items = _items(found, missing, parts)
        known = [place for place, item in enumerate(items) if item is not None]
        embeddings, faults = embed_each(parts.models, [items[place] for place in known], missing)
        sound = {
            place: embeddings[number] for number, place in enumerate(known) if number not in faults
        }
        return [
            _row(row, sound[place], parts.apart, missing) if place in sound else None
            for place, row in enumerate(block.rows)
        ]


def _items(found: pa.Table, missing: Modality, parts: Parts) -> list[Any]:
    """The true halves as the encoder takes them; None for a picture that can't be decoded."""
    if missing == "text":
        return list(found["text"].to_pylist())
    models, limit = parts.models, parts.config.dataset.max_pixels

    def prepared(cell: dict[str, Any]) -> Any:
        try:
            return models.prepare(decode(cell["bytes"], limit, models.jpeg_side))
        except UndecodableImage:
            return None

    return [prepared(cell) for cell in found["image"].to_pylist()]


def _row(row: Row, truth: np.ndarray, apart: KnowledgeApart, missing: Modality) -> dict[str, Any]:
    random = apart.random_halves(row.id, missing) @ truth
    return {
        "chosen": None if row.best is None else _cosine(row.best.embedding, truth),
        "example": _cosine(apart.halves([row.examples[0].hit.row], missing)[0], truth)
        if row.examples
        else None,
        "random": float(random.mean()) if len(random) else None,
        "middle": float(np.median(random)) if len(random) else None,
        "candidates": [_cosine(tried.embedding, truth) for tried in row.tried],
        "likeness": likeness(row.tried).tolist(),
        "evidence": None if row.chosen is None else evidence_of(row, row.chosen).tolist(),
        "looks": [
            {
                "place": place,
                "chosen": _cosine(row.tried[place].embedding, truth),
                "evidence": evidence_of(row, place).tolist(),
            }
            for place in row.looks
        ],
    }


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.dot(one, other))
