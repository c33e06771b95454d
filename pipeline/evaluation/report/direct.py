"""Tables of what was generated and of what was retrieved, beside the hidden halves."""

from __future__ import annotations

from pipeline.evaluation.report.table import NONE, Table, draws_told, ordering_told, signed
from pipeline.evaluation.results.ranked import RECALL_AT
from pipeline.evaluation.results.records import names_of
from pipeline.evaluation.results.results import Results

RETRIEVAL = ("quality", "gain over cross", "gain over intra", *(f"R@{k}" for k in RECALL_AT))


def direct_table(results: Results, rate: float) -> Table | None:
    """Generated halves beside the hidden ones."""
    records = [r for r in results.records if r.rate == rate]
    columns = names_of(records, "direct")
    if not columns:
        return None
    rows = []
    for label in dict.fromkeys(r.label for r in records if r.group == "direct"):
        cells = []
        for missing, measure in columns:
            record = results.value(rate, label, group="direct", missing=missing, measure=measure)
            if record is None:
                cells.append(NONE)
            else:
                half = "" if record.half is None else f" ± {record.half:.3f}"
                cells.append(f"{record.value:.3f}{half}")
        made = results.value(rate, label, group="rows", measure="completed")
        rows.append((label, f"{made.value:.0f}" if made else "0", *cells))
    headings = ("variant", "completed", *(f"{missing}: {measure}" for missing, measure in columns))
    note = (
        "Cosines and the Fréchet distance (lower is better) by the judge; NIQE: lower is better."
        f" ± is the 95 % interval over rows{draws_told(results)}; a row of several draws counts as"
        " one."
    )
    lost = [r for r in records if r.group == "rows" and r.measure == "not measured"]
    if lost:
        note += (
            f" Left out: {sum(r.value for r in lost):.0f} halves that can't be decoded or embedded."
        )
    return Table(f"Generated beside hidden, {rate:.0%} missing", headings, tuple(rows), note)


def direct_orderings(results: Results, rate: float) -> Table | None:
    """Gains of one variant over another in what was generated."""
    measures = (("text", "CIDEr"), ("text", "cosine"), ("image", "cosine"))
    rows = []
    for better, worse, claim in results.orderings():
        gains = [results.direct_gain(rate, better, worse, *measure) for measure in measures]
        if any(one is not None for one in gains):
            cells = (NONE if one is None else signed(one.mean, one.half) for one in gains)
            rows.append((ordering_told(better, worse, claim), *cells))
    if not rows:
        return None
    headings = ("ordering", *(f"{missing}: {measure}" for missing, measure in measures))
    note = "Paired over rows, with 95 % intervals; a row of several draws counts as one."
    return Table(
        f"Orderings by what was generated, {rate:.0%} missing", headings, tuple(rows), note
    )


def retrieval_table(results: Results, rate: float) -> Table | None:
    """How good an example each mode finds."""
    records = [r for r in results.records if r.rate == rate and r.group == "retrieval"]
    labels = list(dict.fromkeys(r.label for r in records))
    shown = "rag4dmc" if "rag4dmc" in labels else next(iter(labels), None)
    rows = []
    for label in labels:
        for mode in dict.fromkeys(r.mode for r in records):
            own = [r for r in records if (r.label, r.mode) == (label, mode)]
            # All modes are of interest once; of the other variants, what they use.
            if not own or not (own[0].used or label == shown):
                continue
            cells = []
            for missing in ("text", "image"):
                # The first draw's stands for all.
                figures = {r.measure: results.pooled(r) for r in own[::-1] if r.missing == missing}
                for measure in RETRIEVAL:
                    one = figures.get(measure)
                    half = "" if one is None or one.half is None else f" ± {one.half:.3f}"
                    cells.append(NONE if one is None else f"{one.value:.3f}{half}")
            rows.append((f"{label}: {mode}{' *' if own[0].used else ''}", *cells))
    if not rows:
        return None
    headings = ["knowledge base: mode"]
    headings += [
        f"{missing} missing: {measure}" for missing in ("text", "image") for measure in RETRIEVAL
    ]
    note = (
        "Quality: the judge's cosine of the example's half to the hidden one. R@k: the best pair by"
        " that cosine is among the first k. * is the mode that the variant uses. ± as above."
    )
    return Table(f"Retrieval, {rate:.0%} missing", tuple(headings), tuple(rows), note)
