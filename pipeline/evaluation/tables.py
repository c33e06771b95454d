"""The results as tables of text, for the terminal, the page and Markdown alike."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.evaluation.claims import PAPER, paper_way
from pipeline.evaluation.records import names_of
from pipeline.evaluation.results import Results
from pipeline.evaluation.statistics import RECALL_AT

RETRIEVAL = ("quality", "gain over cross", "gain over intra", *(f"R@{k}" for k in RECALL_AT))
DIRECTIONS = (("I2T", "image to text"), ("T2I", "text to image"))
_NONE = "–"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    title, note : str
    headings : tuple of str
        Of the columns; the first column is text, the others are figures.
    rows : tuple of tuples of str
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """The table in GitHub's Markdown, without its title."""
        lines = [
            "| " + " | ".join(self.headings) + " |",
            "| --- |" + " ---: |" * (len(self.headings) - 1),
            *("| " + " | ".join(row) + " |" for row in self.rows),
        ]
        return "\n".join(lines) + (f"\n\n{self.note}" if self.note else "")


def tables(results: Results) -> list[Table]:
    """Every table that the results allow."""
    found: list[Table] = []
    for rate in results.rates:
        found += [
            table
            for table in (
                downstream_table(results, rate),
                direct_table(results, rate),
                direct_orderings(results, rate),
                retrieval_table(results, rate),
            )
            if table is not None
        ]
    comparisons = comparison_table(results)
    return found + ([comparisons] if comparisons is not None else [])


def markdown(results: Results) -> str:
    """All tables in Markdown, each under a heading."""
    return (
        "\n\n".join(f"## {table.title}\n\n{table.markdown()}" for table in tables(results)) + "\n"
    )


def downstream_table(results: Results, rate: float) -> Table | None:
    """R@k of the fine-tuned models, and the share of the way, beside the paper's."""
    headings = ["variant", "rows"]
    headings += [f"{name} R@{k}" for name, _ in DIRECTIONS for k in RECALL_AT]
    headings += ["mean R@1", "of the way", "paper"]
    theirs = paper_way()
    rows = []
    if results.start is not None:
        both = results.start.image_to_text, results.start.text_to_image
        figures = [f"{(ranks[0] < k).mean():.3f}" for ranks in both for k in RECALL_AT]
        mean = sum(float((ranks[0] < 1).mean()) for ranks in both) / 2
        rows.append(("(start)", _NONE, *figures, f"{mean:.3f}", _NONE, _NONE))
    for label in results.labels:
        found = [
            results.recall(rate, label, direction, k)
            for _, direction in DIRECTIONS
            for k in RECALL_AT
        ]
        mean_recall = results.mean_recall(rate, label)
        if mean_recall is None:
            continue
        trained = results.value(rate, label, group="rows", measure="trained on")
        way = results.way(rate, label)
        rows.append(
            (
                label,
                _NONE if trained is None else f"{trained.value:.0f}",
                *(_NONE if one is None else str(one) for one in found),
                f"{mean_recall.mean():.3f}",
                _NONE if way is None else f"{way.mean:.0%} ± {way.half:.0%}",
                f"{theirs[label]:.0%}" if label in theirs else _NONE,
            )
        )
    if len(rows) < 2:
        return None
    span = results.span(rate)
    if span is None:
        note = "Without both drop and complete nothing says what there is to win."
    else:
        enough = "exceeds" if results.certain(rate) else "does not exceed"
        note = (
            f"complete − drop in mean R@1 is {span.over_seeds}, which {enough} its interval three"
            f" times{'' if results.certain(rate) else ': these figures do not count'}."
        )
    note += f" Mean and 95 % interval over seeds{_draws(results)}; paper: MSCOCO at 70 % missing."
    return Table(f"Downstream, {rate:.0%} missing", tuple(headings), tuple(rows), note)


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
                cells.append(_NONE)
            else:
                half = "" if record.half is None else f" ± {record.half:.3f}"
                cells.append(f"{record.value:.3f}{half}")
        made = results.value(rate, label, group="rows", measure="completed")
        rows.append((label, f"{made.value:.0f}" if made else "0", *cells))
    headings = ("variant", "completed", *(f"{missing}: {measure}" for missing, measure in columns))
    note = (
        "Cosines and the Fréchet distance (lower is better) by the judge; NIQE: lower is better."
        f" ± is the 95 % interval over rows{_draws(results)}."
    )
    return Table(f"Generated beside hidden, {rate:.0%} missing", headings, tuple(rows), note)


def direct_orderings(results: Results, rate: float) -> Table | None:
    """Gains of one variant over another in what was generated."""
    measures = (("text", "CIDEr"), ("text", "cosine"), ("image", "cosine"))
    rows = []
    for better, worse, claim in results.orderings():
        gains = [results.direct_gain(rate, better, worse, *measure) for measure in measures]
        if any(one is not None for one in gains):
            cells = (_NONE if one is None else _signed(one.mean, one.half) for one in gains)
            rows.append((_ordering(better, worse, claim), *cells))
    if not rows:
        return None
    headings = ("ordering", *(f"{missing}: {measure}" for missing, measure in measures))
    note = "Differences paired over rows, with 95 % intervals."
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
                    cells.append(_NONE if one is None else f"{one.value:.3f}{half}")
            rows.append((f"{label}: {mode}{' *' if own[0].used else ''}", *cells))
    if not rows:
        return None
    headings = ["knowledge base: mode"]
    headings += [
        f"{missing} missing: {measure}" for missing in ("text", "image") for measure in RETRIEVAL
    ]
    note = (
        "Quality: the judge's cosine of the example's half to the hidden one. R@k: the best pair by"
        " that cosine is among the first k. * is the mode that the variant uses."
    )
    return Table(f"Retrieval, {rate:.0%} missing", tuple(headings), tuple(rows), note)


def comparison_table(results: Results) -> Table | None:
    """Which orderings hold."""
    comparisons = results.comparisons()
    if not comparisons:
        return None
    several = results.facts.get("draws", 1) > 1
    rows = []
    for one in comparisons:
        row = [
            _ordering(one.better, one.worse, one.claim),
            f"{one.rate:.0%}",
            _signed(one.over_seeds.mean, one.over_seeds.half),
            _signed(one.over_rows.mean, one.over_rows.half),
        ]
        if several:
            gains = results.draw_gains(one.rate, one.better, one.worse).values()
            row.append(", ".join(f"{gain:+.3f}" for gain in gains))
        rows.append((*row, one.holds))
    note = (
        "Paired differences in mean R@1 with 95 % intervals: over seeds of the fine-tuning (the same"
        " test pairs), and over test pairs (the same fine-tunings). Holds: yes or reversed beyond"
        " both intervals, on these pairs beyond the one over seeds alone, else open."
    )
    headings = ("ordering", "missing", "over seeds", "over test pairs")
    headings += (*(("by draw",) if several else ()), "holds")
    return Table("Orderings", headings, tuple(rows), note)


def _draws(results: Results) -> str:
    """What a note says of several draws."""
    draws = results.facts.get("draws", 1)
    return f", {draws} draws of test set and mask together" if draws > 1 else ""


def _ordering(better: str, worse: str, claim: str) -> str:
    return f"{claim}{': ' if claim else ''}{better} − {worse}"


def _signed(mean: float, half: float) -> str:
    return f"{mean:+.3f} ± {half:.3f}"


def paper_table() -> Table:
    """The paper's own figures."""
    theirs = paper_way()
    rows = tuple(
        (name, *(f"{figure:.1f}" for figure in figures), f"{theirs[name]:.0%}")
        for name, figures in sorted(PAPER.items(), key=lambda item: sum(item[1]))
    )
    return Table(
        "The paper: MSCOCO, 70 % missing",
        ("variant", "I2T R@1", "T2I R@1", "of the way"),
        rows,
        "In per cent; purified is the paper's KFA. Other data, models and test set: for reference.",
    )
