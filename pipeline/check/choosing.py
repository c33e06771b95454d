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
    off : bool
        None were asked for.
    """

    ids: list[str] = field(default_factory=list)
    why: str | None = None
    off: bool = False


def choose(
    pairs: pa.Table,
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
    pairs : pyarrow.Table
        The dataset's own: `id`, and digests `image_digest` and `text_digest`, uint64.
    predicted : collection of str
        Ids of pairs that mappings without them have predicted.
    taken : collection of str
        Ids of pairs by which it was measured what judges.
    count : int
        How many, at most.
    purpose : str
        What they are checked for: the half, the run's seed, and a digest of the settings.
    """
    fit = pc.and_(
        pc.is_in(pairs["id"], pa.array(sorted(predicted), pairs["id"].type)),
        pc.invert(pc.is_in(pairs["id"], pa.array(sorted(taken), pairs["id"].type))),
    )
    pool = pairs.filter(fit)
    groups = _groups(pairs["text_digest"].to_numpy(), pool)
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


def _groups(texts: np.ndarray, pool: pa.Table) -> list[int]:
    """Groups of the pool's pairs; a text that many of all pairs have is a label and joins none."""
    if not len(pool):
        return []
    values, counts = np.unique(texts, return_counts=True)
    own = np.searchsorted(values, pool["text_digest"].to_numpy())
    label = counts[own] > COMMON
    own[label] = len(values) + np.flatnonzero(label)
    groups: list[int] = content_groups(pool["image_digest"].to_numpy(), own).tolist()
    return groups
