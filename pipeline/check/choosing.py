"""Which complete pairs are checked: some that nothing was fitted on that judges them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kb.groups import COMMON, content_groups
from pipeline.config.run import FEWEST_CHECKED
from pipeline.storage.digests import digest


@dataclass(frozen=True)
class Choice:
    """The pairs that are checked for a half.

    Attributes
    ----------
    ids : list of str
    why : str or None
        Why there are none.
    """

    ids: list[str] = field(default_factory=list)
    why: str | None = None


def choose(
    complete: pa.Table,
    predicted: Collection[str],
    taken: Collection[str],
    count: int,
    purpose: str,
) -> Choice:
    """Choose pairs, one of each group that shares a picture or a text.

    The order that they are taken in follows from `purpose` and the ids alone: more of them are the same
    and some besides, and of another purpose others.

    Parameters
    ----------
    complete : pyarrow.Table
        The dataset's complete rows: `id`, and digests `image` and `text`.
    predicted : collection of str
        Ids of pairs that mappings without them have predicted.
    taken : collection of str
        Ids of pairs by which it was measured what judges.
    count : int
        How many, at most.
    purpose : str
        What they are checked for: the half, the run's seed, and a digest of the settings.
    """
    ids = complete["id"].combine_chunks()
    fit = pc.and_(
        pc.is_in(ids, pa.array(sorted(predicted), pa.string())),
        pc.invert(pc.is_in(ids, pa.array(sorted(taken), pa.string()))),
    )
    pool = complete.filter(fit)
    groups = _groups(complete, pool)
    order = sorted(
        zip(pool["id"].to_pylist(), groups, strict=True), key=lambda row: digest(purpose, row[0])
    )
    # The first of each group that comes.
    first = {group: row_id for row_id, group in reversed(order)}
    chosen = [row_id for row_id, group in order if first[group] == row_id]
    if len(chosen) < FEWEST_CHECKED:
        why = (
            f"{len(chosen)} complete pairs may be checked, which is fewer than {FEWEST_CHECKED}"
            if chosen
            else "there is no complete pair that may be checked"
        )
        return Choice(why=why)
    return Choice(chosen[:count])


def _groups(complete: pa.Table, pool: pa.Table) -> list[int]:
    """Groups of the pool's pairs; a text that many rows of the dataset have is a label and joins none."""
    if not len(pool):
        return []
    counts = pc.value_counts(complete["text"].combine_chunks())
    common = counts.filter(pc.greater(counts.field("counts"), COMMON)).field("values")
    texts = np.asarray(pool["text"].to_pylist(), object)
    label = pc.is_in(pool["text"].combine_chunks(), common).to_numpy(zero_copy_only=False)
    texts[label] = [f"\0{place}" for place in np.flatnonzero(label)]
    groups: list[int] = content_groups(pool["image"].to_pylist(), texts.astype(str)).tolist()
    return groups
