"""What the report shows of a run's check: its figures, how well confidence is told, and pairs to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kb.embeddings import MODALITIES, Modality, opposite
from pipeline.check.summing import checked_rows
from pipeline.dataset.catalog import Catalog, encoded_images, fetch
from pipeline.job import Job
from pipeline.ledger.ledger import Ledger
from pipeline.report.charts import reliability
from pipeline.report.gallery import Thumbnails, cut

# Measures in the order of the table, with what they are called.
MEASURES = {
    "similarity": "Similarity to the truth",
    "example": "similarity of the nearest example to it",
    "random": "similarity of a random pair to it",
    "gain": "gain over the nearest example",
    "way": "share of the way from random to the truth",
    "example_way": "the nearest example's share of that way",
    "cider": "CIDEr",
}
SHARES = {
    "better": "more like the truth than the example",
    "above": "more like the truth than the median random pair",
}


def shown_check(job: Job) -> list[dict[str, Any]]:
    """What stands of a job's check, by half, in values that a template takes; nothing of one that is off.

    Returns
    -------
    list of dict
        `half`, `figures` (`pipeline.check.figures`), `means` (of (name, mean, half of the interval)),
        `shares` (of (name, mean, low, high)), `reliability` (a drawing, or None) and `pairs` to look at,
        worst first: `id`, `similarity`, `example` (its similarity), and `given` (the half that stayed),
        `true` and `made`: lines of text, or the data URI of a picture.
    """
    result = []
    for half in sorted(MODALITIES, reverse=True):
        held = job.check.held(half)
        found = held.get("figures")
        if found is None or found.get("off"):
            continue
        calibration = found.get("calibration")
        result.append(
            {
                "half": half,
                "figures": found,
                "means": [
                    (name, found[key]["mean"], found[key]["half"])
                    for key, name in MEASURES.items()
                    if key in found
                ],
                "shares": [
                    (name, *(found[key][value] for value in ("mean", "low", "high")))
                    for key, name in SHARES.items()
                    if key in found
                ],
                "reliability": reliability(calibration["curve"]) if calibration else None,
                "pairs": _pairs(job, half, held.get("shown") or []),
            }
        )
    return result


def _pairs(job: Job, half: Modality, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs to look at: the truth beside what was generated, of what was given."""
    made, pairs = _made(job, half, ids), _whole(job.catalog, ids)
    thumbnails = Thumbnails()

    def part(key: str, value: Any) -> Any:
        if isinstance(value, bytes):
            return thumbnails.uris.get(thumbnails.add(key, value) or "")
        return [cut(line) for line in ([value] if isinstance(value, str) else value or [])]

    given = opposite(half)
    return [
        {
            "id": row_id,
            "similarity": made[row_id]["check"]["chosen"],
            "example": made[row_id]["check"]["example"],
            "given": part(f"given {row_id}", pairs[row_id][given]),
            "true": part(f"true {row_id}", pairs[row_id][half]),
            "made": part(f"made {row_id}", made[row_id]["half"]),
        }
        for row_id in ids
        if row_id in made and row_id in pairs
    ]


def _made(job: Job, half: Modality, ids: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """What was generated for some checked pairs, and how like the truth it is."""
    ledger = Ledger(job.check.parts[half].folder).load()
    found = {}
    for row in checked_rows(ledger, ids, [half]):
        value = row[half]["bytes"] if half == "image" and row[half] else row[half]
        found[row["id"]] = {"half": value, "check": row["check"]}
    return found


def _whole(catalog: Catalog, ids: Sequence[str]) -> dict[str, dict[Modality, Any]]:
    """Both halves of some pairs as they are in the dataset: captions, and the bytes of the picture."""
    if not ids:
        return {}
    rows = catalog.table.filter(pc.is_in(catalog.table["id"], pa.array(ids, pa.string())))
    places = zip(rows["file"].to_pylist(), rows["position"].to_pylist(), strict=True)
    found = fetch(catalog.dataset, places)
    halves = zip(encoded_images(found).to_pylist(), found["text"].to_pylist(), strict=True)
    return {
        row_id: {"image": image, "text": text}
        for row_id, (image, text) in zip(rows["id"].to_pylist(), halves, strict=True)
    }
