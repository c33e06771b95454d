"""Writing the page: gathers figures, cards and drawings, and renders the template."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.dataset.schema import STATUSES
from pipeline.export.card import COPYING
from pipeline.ledger.review import Verdict, state
from pipeline.report.charts import Curve, Histogram, clouds, curve, histogram
from pipeline.report.gallery import (
    PARTS,
    Figures,
    Row,
    Sample,
    StoredRow,
    StoredRows,
    Thumbnails,
    card,
)
from pipeline.report.projection import Projection
from pipeline.storage.files import write_whole

# What figures, the sample and a person's verdicts are told by, as Parquet names it.
FIGURED = [
    *("id", "status", "missing", "reason"),
    *(f"completion.{name}" for name in ("attempt", "chosen", "score", "confidence", "run_id")),
    *(f"completion.candidates.list.element.{name}" for name in ("valid", "reason", *PARTS)),
]
_LABELS = {
    "score": "Score",
    "cosine": "Cosine to the pseudo-embedding",
    "bleu": "BLEU against the examples",
    "niqe": "NIQE (lower is better)",
}


def completed_rows(parts: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The rows of the parts of a completed dataset, in order, a row group in memory at a time.

    They have what figures are made of, and as `stored` where the rest is: pictures, texts, prompts and
    examples are read of the rows that are shown alone.
    """
    import pyarrow.parquet as pq

    for path in parts:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=FIGURED).to_pylist()
                for number, row in enumerate(rows):
                    yield {**row, "stored": StoredRow(path, group, number)}


def write_report(
    path: str | Path,
    rows: Iterable[Row],
    summary: Mapping[str, Any],
    kb_manifest: Mapping[str, Any] | None = None,
    *,
    example_image: Callable[[str], bytes | None] | None = None,
    projection: Projection | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
    check: Sequence[Mapping[str, Any]] = (),
    sample: int = 400,
    seed: int = 0,
) -> dict[str, int]:
    """Write a run's report as one HTML file that needs nothing beside it.

    Parameters
    ----------
    path : path
        Where the page goes; written beside and moved there whole.
    rows : iterable of mapping
        Completed rows as `pipeline.dataset.schema` has them (:func:`completed_rows`); read once.
    summary : mapping
        What is known of the run, all of it optional: "name", "run_id", "finished" (text),
        "settings" (YAML text), "models" (list of mappings with role, model, revision), "times"
        (list of mappings with step, seconds) and "warnings" (list of text).
    kb_manifest : mapping, optional
        `KnowledgeBase.manifest`.
    example_image : callable, optional
        The encoded image of a retrieved pair by its id, or None.
    projection : Projection, optional
        The knowledge base in two dimensions.
    verdicts : mapping, optional
        A person's verdicts by id.
    check : sequence of mapping
        What the run's check found (`pipeline.report.check.shown_check`).
    sample : int
        About how many rows become cards where there are more: best scores, worst scores, and a
        random part of each outcome. Counts and histograms are always of all rows.
    seed : int
        Seed of the random part.

    Returns
    -------
    dict of str to int
        "rows", "cards" and "bytes".
    """
    figures, chosen = Figures(), Sample(sample, seed)
    for found in rows:
        row = found
        if verdicts and found["id"] in verdicts:
            row = {**found, "review": state(verdicts[found["id"]], found)}
        figures.add(row)
        chosen.add(row)
    thumbnails, stored = Thumbnails(), StoredRows()
    shown = []
    for row in chosen.rows():
        if "stored" in row:
            row = {**stored.read(row["stored"]), "review": row.get("review")}
        shown.append(card(row, thumbnails, example_image))
    data = {
        "run": summary.get("name"),
        "run_id": summary.get("run_id"),
        "cards": shown,
        "images": thumbnails.uris,
        "copying": sorted(COPYING),
    }
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            total=chosen.seen,
            shown=len(shown),
            outcomes=_outcomes(figures),
            losses=_losses(figures),
            faults=figures.invalid.most_common(),
            reviewed=figures.reviewed,
            histograms=_histograms(figures),
            check=check,
            kb=kb_manifest,
            sources=_sources(projection),
            clouds=_clouds(projection),
            explained=projection.explained if projection else None,
            curves=_curves(kb_manifest),
            data=_embedded(data),
        )
    )
    path = Path(path)
    write_whole(path, page)
    return {"rows": chosen.seen, "cards": len(shown), "bytes": path.stat().st_size}


@cache
def environment() -> Any:
    """The templates, with the filters that they use: compiled once, however many pages a process writes."""
    from jinja2 import ChainableUndefined, Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=ChainableUndefined,
    )
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.filters["figure"] = _figure
    environment.filters["duration"] = _duration
    return environment


def _embedded(data: Any) -> Any:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    from markupsafe import Markup

    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _figure(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _outcomes(figures: Figures) -> list[dict[str, Any]]:
    """Per status: all rows, and those whose image, text or both were missing."""
    known = [*STATUSES, *sorted({s for s, _ in figures.outcomes} - set(STATUSES))]
    return [
        {
            "status": status,
            "rows": sum(n for (s, _), n in figures.outcomes.items() if s == status),
            "image": figures.outcomes[status, "image"],
            "text": figures.outcomes[status, "text"],
            "both": 0 if status == "observed" else figures.outcomes[status, ""],
        }
        for status in known
    ]


def _losses(figures: Figures) -> list[tuple[tuple[str, str, str], int]]:
    return [
        (key, count) for key, count in figures.reasons.most_common() if key[0] not in ("observed",)
    ][:20]


def _histograms(figures: Figures) -> list[tuple[str, list[Histogram]]]:
    result = []
    for missing, title in (("text", "Generated texts"), ("image", "Generated images")):
        drawn = [
            histogram(
                label,
                figures.chosen.get((missing, part), ()),
                figures.others.get((missing, part), ()),
            )
            for part, label in _LABELS.items()
        ]
        kept = [one for one in drawn if one is not None]
        if kept:
            result.append((title, kept))
    return result


def _sources(projection: Projection | None) -> list[str]:
    return list(projection.before) if projection else []


def _clouds(projection: Projection | None) -> list[Any]:
    if projection is None:
        return []
    return clouds(
        {
            "Before": (projection.total_before, projection.before),
            "After": (projection.total_after, projection.after),
        }
    )


def _curves(manifest: Mapping[str, Any] | None) -> list[Curve]:
    """The network's loss, held-out gain over γ and cosine over rounds, as the manifest has them."""
    losses: Sequence[float] = ((manifest or {}).get("mapping") or {}).get("losses") or []
    drawn: list[Curve | None] = [
        curve(
            "mapping: the network's held-out loss over epochs",
            [str(epoch) for epoch in range(len(losses))],
            losses,
        )
    ]
    alignments = ((manifest or {}).get("purification") or {}).get("alignment") or {}
    for modality, one in alignments.items():
        gains: Sequence[Mapping[str, Any]] = one.get("gains") or []
        drawn.append(
            curve(
                f"{modality}: held-out gain in cosine over γ",
                [f"{gain['gamma']:g}" for gain in gains],
                [gain["gain"] for gain in gains],
            )
        )
        rounds = [entry for entry in one.get("history") or [] if "cosine_after" in entry]
        drawn.append(
            curve(
                f"{modality}: mean cosine of the pairs over rounds",
                [str(entry["round"]) for entry in rounds],
                [entry["cosine_after"] for entry in rounds],
            )
        )
    return [one for one in drawn if one is not None]
