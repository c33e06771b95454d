"""Tables of what completing is worth downstream, beside the paper's."""

from __future__ import annotations

from pipeline.evaluation.report.table import NONE, Table, draws_told, ordering_told, signed
from pipeline.evaluation.results.claims import PAPER, paper_way
from pipeline.evaluation.results.ranked import FEWEST_DRAWS, MEASURES, RECALL_AT
from pipeline.evaluation.results.results import Results

DIRECTIONS = (("I2T", "image to text"), ("T2I", "text to image"))


def downstream_table(results: Results, rate: float) -> Table | None:
    """R@k and mean recall of what was trained, and the share of the way, beside the paper's."""
    headings = ["variant", "rows"]
    headings += [f"{name} R@{k}" for name, _ in DIRECTIONS for k in RECALL_AT]
    over_draws = _over_draws(results)
    headings += [*MEASURES, "of the way ± over seeds", "± over test pairs"]
    headings += [*(["± over draws"] if over_draws else []), "paper"]
    theirs = paper_way()
    rows = []
    if results.start is not None:
        both = results.start.image_to_text, results.start.text_to_image
        figures = [f"{(ranks[0] < k).mean():.3f}" for ranks in both for k in RECALL_AT]
        figures += [f"{results.start.hits(at).mean():.3f}" for at in MEASURES.values()]
        none = [NONE] * (len(headings) - len(figures) - 2)
        rows.append(("(start)", NONE, *figures, *none))
    for label in results.labels:
        found = [
            results.recall(rate, label, direction, k)
            for _, direction in DIRECTIONS
            for k in RECALL_AT
        ]
        means = [results.mean_recall(rate, label, measure) for measure in MEASURES]
        if results.ranked(rate, label) is None:
            continue
        trained = results.value(rate, label, group="rows", measure="trained on")
        way = results.way(rate, label)
        shares = [NONE] * (2 + over_draws)
        if way is not None:
            seeds, rest = way.over_seeds, [way.over_rows, way.over_draws][: 1 + over_draws]
            shares = [f"{seeds.mean:.0%} ± {seeds.half:.0%}"]
            shares += [NONE if one is None else f"± {one.half:.0%}" for one in rest]
        rows.append(
            (
                label,
                NONE if trained is None else f"{trained.value:.0f}",
                *(NONE if one is None else str(one) for one in found),
                *(f"{mean.mean():.3f}" for mean in means if mean is not None),
                *shares,
                f"{theirs[label]:.0%}" if label in theirs else NONE,
            )
        )
    if all(row[0] == "(start)" for row in rows):
        return None
    note = ""
    if (span := results.span(rate)) is not None:
        note = (
            f"complete − drop in {results.measure} is {span.over_seeds} over seeds and"
            f" ± {span.over_rows.half:.3f} over test pairs. "
        )
    reason = uncertain(results, rate)
    note += f"{reason}: these figures do not count. " if reason else ""
    note += (
        f"R@k: mean and 95 % interval over seeds{draws_told(results)}; of a picture with several"
        " captions the best counts, and each caption is a query. Mean recall: of R@1, R@5 and R@10,"
        f" both ways. Of the way: from drop to complete in {results.measure}, where complete − drop"
        " exceeds both its intervals three times. Paper: MSCOCO at 70 % missing, R@1."
    )
    return Table(f"Downstream, {rate:.0%} missing", tuple(headings), tuple(rows), note)


def comparison_table(results: Results, measure: str | None = None) -> Table | None:
    """Which orderings hold by a measure, by default the one that variants are compared by."""
    measure = measure or results.measure
    comparisons = results.comparisons(measure)
    if not comparisons:
        return None
    several, over_draws = results.facts.get("draws", 1) > 1, _over_draws(results)
    rows = []
    for one in comparisons:
        gain = one.gain
        spreads = [gain.over_seeds, gain.over_rows, gain.over_draws][: 2 + over_draws]
        row = [
            ordering_told(one.better, one.worse, one.claim),
            f"{one.rate:.0%}",
            *(NONE if each is None else signed(each.mean, each.half) for each in spreads),
        ]
        if several:
            gains = results.draw_gains(one.rate, one.better, one.worse, measure).values()
            row.append(", ".join(f"{gain:+.3f}" for gain in gains))
        rows.append((*row, one.holds))
    note = (
        f"Paired differences in {measure} with 95 % intervals: over seeds of the training (the same"
        " test pairs), and over test pairs (the same trained models). Holds: yes or reversed beyond"
        " both intervals, on these pairs beyond the one over seeds alone, else open; nothing counts"
        " where complete − drop does not exceed its own two three times."
    )
    if over_draws:
        note += (
            " Over draws: of the draws' own differences. Draws differ in seeds, test pairs and what"
            " was hidden, so that this interval holds all three, but it is wide because draws are"
            " few. Holds does not ask for it: what is not beyond it may turn out otherwise where"
            " other halves are hidden."
        )
    headings = ("ordering", "missing", "over seeds", "over test pairs")
    headings += (*(("over draws",) if over_draws else ()), *(("by draw",) if several else ()))
    return Table(f"Orderings by {measure}", (*headings, "holds"), tuple(rows), note)


def _over_draws(results: Results) -> bool:
    """Whether there are draws enough for intervals over them."""
    return bool(results.facts.get("draws", 1) >= FEWEST_DRAWS)


def uncertain(results: Results, rate: float) -> str | None:
    """Why the downstream figures of a rate do not count; None where they do."""
    if results.span(rate) is None:
        return "complete and drop were not both measured, so that nothing says what there is to win"
    if results.certain(rate):
        return None
    return "complete − drop does not exceed its intervals three times"


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
