"""What a dataset card says of how good the generated halves are, by the check of the run that made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.export.markdown import table

_COLUMNS = {
    "similarity": "similarity to the truth",
    "example": "of the nearest example",
    "random": "of a random pair",
    "better": "better than the example",
    "cider": "CIDEr",
}
_CONFIDENCE = (
    "Where the run could tell, `completion.confidence` of a row is the similarity to the truth that its"
    " generated half is expected to have, by what is known of it without the truth (its score, the margin"
    " to the next candidate, the candidates' agreement, hubness, the similarity of the example), and"
    " `completion.gain_probability` the probability that it is better than leaving the row out would be:"
    " that its similarity to the truth is above the median of those of random halves of the dataset's own"
    " pairs."
)


def checked(check: Mapping[str, Mapping[str, Any]]) -> str:
    """The section on the check, as Markdown.

    Parameters
    ----------
    check
        Figures by half (`pipeline.check.figures`); none where nothing was checked.
    """
    known = {half: found for half, found in check.items() if "similarity" in found}
    if not known:
        return (
            "It was not measured: no pairs, or too few, were checked against the truth when the rows were"
            " completed."
        )
    rows = [
        (half, f"{found['generated']:,}", *(_cell(found, name) for name in _COLUMNS))
        for half, found in known.items()
    ]
    said = (
        "Some of the dataset's complete pairs had a half hidden, were completed by the same settings and"
        " models as its rows, without themselves and their near-duplicates in the knowledge base, and"
        " compared with the truth. Similarity is the cosine by the run's encoder; intervals are of 95 %."
    )
    errors = [
        f"of {half}s by {found['calibration']['error']:.3f} where chance alone makes {found['calibration']['chance']:.3f} ({found['calibration']['rows']:,} pairs)"
        for half, found in known.items()
        if found.get("calibration")
    ]
    calibrated = (
        f" On pairs that it was not fitted on it is off {', '.join(errors)}." if errors else ""
    )
    again = [
        f"of {half}s {look['looked']:,} pairs, which gained {look['gain']['mean']:+.3f} ± {look['gain']['half']:.3f}"
        for half, found in known.items()
        if "gain" in (look := found.get("second_look") or {})
    ]
    looked = (
        " Where little was expected of a half it was drawn once more from other examples, and the better by"
        f" score was kept: {', '.join(again)}."
        if again
        else ""
    )
    figures = table(("half", "pairs", *_COLUMNS.values()), rows)
    return f"{said}{looked}\n\n{figures}\n\n{_CONFIDENCE}{calibrated}"


def _cell(found: Mapping[str, Any], name: str) -> str:
    one = found.get(name)
    if one is None:
        return "–"
    if name == "better":
        return f"{one['mean']:.0%} ({one['low']:.0%} to {one['high']:.0%})"
    return f"{one['mean']:.3f} ± {one['half']:.3f}"
