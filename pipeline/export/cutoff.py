"""Which generated halves are good enough to train on: cuts on the selection score, a half each.

Scores of texts and of images are on different scales, so that each has a cut of its own: a least
score, or the share that is kept, best first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

Half = Literal["text", "image"]


def scores(completed: ds.Dataset) -> pa.Table:
    """What a cut needs to know of each row: `missing`, `generated` (bool) and `score`."""
    columns = {
        "missing": pc.field("missing"),
        "generated": pc.field("status") == "completed",
        "score": pc.field("completion", "score"),
    }
    return completed.to_table(columns)


def cutoffs(
    rows: pa.Table | None, min_score: Mapping[Half, float], best: Mapping[Half, float]
) -> dict[str, float]:
    """The least score, by half, that a generated half needs to be kept.

    Parameters
    ----------
    rows : pa.Table or None
        From :func:`scores`; needed for `best` alone.
    min_score : mapping
        Least scores asked for.
    best : mapping
        Shares to keep, 0 to 1, rounded up to whole rows; of equal scores all stay. Halves without
        a score count as the worst.

    Returns
    -------
    dict
        By half, the higher of both where both are asked for; a half without either is not in it.
    """
    cuts: dict[str, float] = {half: float(least) for half, least in min_score.items()}
    for half, share in best.items():
        assert rows is not None
        own = pc.and_(rows["generated"], pc.equal(rows["missing"], half))
        held = pc.fill_null(rows["score"].filter(own), -np.inf)
        cut = _share_cut(held.to_numpy(), share)
        cuts[half] = max(cut, cuts.get(half, -np.inf))
    return cuts


def _share_cut(held: npt.NDArray[np.float64], share: float) -> float:
    kept = int(np.ceil(share * len(held)))
    return float(np.sort(held)[::-1][kept - 1]) if kept else float("inf")


def below(
    missing: pa.Array, generated: pa.Array, score: pa.Array, cuts: Mapping[str, float]
) -> pa.Array:
    """Whether a row's generated half has less than its cut, [rows] of bool; an observed row never has.

    One without a score is below every cut. `score` may be the confidence.
    """
    low = pa.array(np.zeros(len(missing), dtype=bool))
    for half, least in cuts.items():
        own = pc.and_(generated, pc.fill_null(pc.equal(missing, half), False))
        low = pc.or_(low, pc.and_(own, pc.less(pc.fill_null(score, -np.inf), least)))
    return low


def keep_best(completed: pa.Table, best: Mapping[Half, float]) -> pa.Table:
    """The rows of a completed dataset less those whose generated half is not among the best."""
    rows = scores(ds.dataset(completed))
    cuts = cutoffs(rows, {}, best)
    low = below(rows["missing"], rows["generated"], rows["score"], cuts)
    return completed.filter(pc.invert(low))
