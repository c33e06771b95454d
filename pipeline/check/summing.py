"""What the checked pairs of a half come to: figures, a calibration, and a few to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kb.embeddings import Modality
from pipeline.check.calibrating import Checked, calibrate
from pipeline.check.figures import figures
from pipeline.dataset.catalog import Catalog
from pipeline.ledger.ledger import Ledger

# Pairs to look at, worst to best.
SHOWN = 10


def sum_up(
    half: Modality, ledger: Ledger, ids: Sequence[str], catalog: Catalog, seed: int
) -> dict[str, Any]:
    """Sum up the checked pairs of a half.

    Parameters
    ----------
    half : {"text", "image"}
    ledger : Ledger
        Of the half's check, loaded.
    ids : sequence of str
        The pairs that are checked.
    catalog : Catalog
        Of the dataset, for the true captions.
    seed : int
        Deals the folds of the calibration.

    Returns
    -------
    dict
        `figures` (`pipeline.check.figures`, with `calibration` as
        `pipeline.check.calibrating.Calibrated` tells of it), `calibration` as JSON holds it or None, and
        `shown`, ids from the worst to the best.
    """
    rows = checked_rows(ledger, ids, ["status", "text"])
    for row in rows:
        row["text"] = row["text"][0] if isinstance(row["text"], list) else row["text"]
    made = [row for row in rows if row["check"] is not None and row["check"]["chosen"] is not None]
    summed = figures(rows, half, _captions(catalog, made) if half == "text" else {})
    calibrated = None if "why" in summed else calibrate(_checked(made), seed)
    order = sorted(made, key=lambda row: (row["check"]["chosen"], row["id"]))
    places = np.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().astype(int)
    return {
        "figures": summed | {"calibration": None if calibrated is None else calibrated.told},
        "calibration": None if calibrated is None else calibrated.calibration.dump(),
        "shown": [order[place]["id"] for place in places] if "why" not in summed else [],
    }


def checked_rows(
    ledger: Ledger, ids: Sequence[str], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Checked pairs as they were done last, in the order of `ids`: `id`, `check`, and some columns more."""
    rows: dict[str, dict[str, Any]] = {}
    for manifest in ledger.newest_first():
        table = pq.read_table(
            ledger.parts / manifest.part,
            columns=["id", "check", *columns],
            filters=pc.field("id").isin(list(ids)),
        )
        for row in table.to_pylist():
            rows.setdefault(row["id"], row)
    return [rows[row_id] for row_id in ids if row_id in rows]


def _captions(catalog: Catalog, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """True captions of some pairs, by id."""
    ids = pa.array([row["id"] for row in rows], pa.string())
    place = pc.index_in(ids, value_set=catalog.complete()["id"].combine_chunks())
    captions = catalog.details()["captions"].take(place).to_pylist()
    return dict(zip(ids.to_pylist(), captions, strict=True))


def _checked(rows: Sequence[Mapping[str, Any]]) -> Checked:
    checks = [row["check"] for row in rows]
    return Checked(
        np.array([one["evidence"] for one in checks], np.float64),
        np.array([one["chosen"] for one in checks], np.float64),
        np.array([one["middle"] for one in checks], np.float64),
    )
