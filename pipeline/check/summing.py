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
from pipeline.check.candidates import Choice
from pipeline.check.figures import figures
from pipeline.check.lessons import learn
from pipeline.config.config import Config
from pipeline.dataset.catalog import Catalog
from pipeline.ledger.ledger import Ledger
from selection.scales import Standards

# Pairs to look at, worst to best.
SHOWN = 10


def sum_up(
    half: Modality,
    ledger: Ledger,
    ids: Sequence[str],
    catalog: Catalog,
    config: Config,
    standards: Standards,
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
    config : Config
        The run's.
    standards : Standards
        By which pictures are scored.

    Returns
    -------
    dict
        `figures` (`pipeline.check.figures`, with `calibration` as
        `pipeline.check.calibrating.Calibrated` tells of it, and `weights`, `draws` and
        `second_look` as `pipeline.check.lessons.Lessons` does), `learned` as `pipeline.completion.learned.Learned.parse`
        takes it, and `shown`, ids from the worst to the best as they were drawn at once.
    """
    rows = checked_rows(ledger, ids, ["status", "text", "completion"])
    for row in rows:
        row["text"] = row["text"][0] if isinstance(row["text"], list) else row["text"]
    made = [row for row in rows if row["check"] is not None and row["check"]["chosen"] is not None]
    order = sorted(made, key=lambda row: (row["check"]["chosen"], row["id"]))
    lessons = learn(made, half, config, standards)
    if lessons is not None:
        for row, choice in zip(made, lessons.choices, strict=True):
            _chosen(row, choice)
    summed = figures(rows, half, _captions(catalog, made) if half == "text" else {})
    calibrated = None
    if "why" not in summed:
        whole, without = _checked(made), None
        if lessons is not None:
            whole = _checked(made, lessons.whole)
            without = [_checked(made, choices) for choices in lessons.without]
        calibrated = calibrate(whole, config.run.seed, without)
    places = np.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().astype(int)
    rule = None if lessons is None else lessons.stopping
    return {
        "figures": summed
        | {"calibration": None if calibrated is None else calibrated.told}
        | ({} if lessons is None else lessons.told),
        "learned": {
            "calibration": None if calibrated is None else calibrated.calibration.dump(),
            "looking": None
            if lessons is None or lessons.looking is None
            else lessons.looking.dump(),
            "stopping": None if rule is None else rule.dump(),
            "weights": None if lessons is None else lessons.weights,
        },
        "shown": [order[place]["id"] for place in places] if "why" not in summed else [],
    }


def _chosen(row: dict[str, Any], choice: Choice) -> None:
    """A pair as it would be with another choice."""
    row["check"] = row["check"] | {"chosen": choice.truth, "evidence": choice.evidence.tolist()}
    row["text"] = row["completion"]["candidates"][choice.place]["text"]


def checked_rows(
    ledger: Ledger, ids: Sequence[str], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Checked pairs as they were done last, in the order of `ids`: `id`, `check`, and some columns more."""
    rows: dict[str, dict[str, Any]] = {}
    for manifest in ledger.newest_first():
        table = pq.read_table(
            ledger.parts / manifest.part,
            columns=["id", "check", *columns],
            filters=pc.field("id").isin(pa.array(ids, pa.string())),
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


def _checked(rows: Sequence[Mapping[str, Any]], choices: Sequence[Choice] | None = None) -> Checked:
    """Pairs as they are, or with other choices."""
    checks = [row["check"] for row in rows]
    if choices is not None:
        told = [{"evidence": one.evidence, "chosen": one.truth} for one in choices]
        checks = [check | one for check, one in zip(checks, told, strict=True)]
    return Checked(
        np.array([one["evidence"] for one in checks], np.float64),
        np.array([one["chosen"] for one in checks], np.float64),
        np.array([one["middle"] for one in checks], np.float64),
    )
