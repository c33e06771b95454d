"""What is claimed: the orderings that an evaluation looks at, and the paper's own figures."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.evaluation.results.ranked import Spread

# MSCOCO at 70 % missing, R@1 in per cent of image to text and text to image (the paper's table).
PAPER = {
    "complete": (48.9, 49.6),
    "drop": (35.4, 35.1),
    "direct": (41.4, 43.9),
    "vanilla": (44.9, 44.6),
    "purified": (45.9, 46.4),
    "rag4dmc": (46.6, 47.5),
}

# The orderings that are looked at, the better one first.
ORDERINGS = (
    ("rag4dmc", "drop", "completing helps"),
    ("texts-alone", "drop", "completing texts helps"),
    ("images-alone", "drop", "completing images helps"),
    ("rag4dmc", "texts-alone", "completing images beside texts helps"),
    ("better-images", "drop", "completing texts and keeping the better half of the images helps"),
    ("better-images", "rag4dmc", "leaving the worse half of the images out helps"),
    ("better-images", "texts-alone", "the better half of the images helps"),
    ("rag4dmc", "direct", "examples help"),
    ("rag4dmc", "nearest", "generating beats copying the example"),
    ("vanilla", "direct", "internal examples help"),
    ("combined", "vanilla", "external pairs help"),
    ("purified", "combined", "purifying helps"),
    ("rag4dmc", "purified", "fusion retrieval helps"),
    ("rag4dmc", "without-alignment", "alignment helps"),
    ("rag4dmc", "without-filter", "the filter helps"),
    ("rag4dmc", "without-fusion", "the second stage of retrieval helps"),
    ("rag4dmc", "without-selection", "selection helps"),
    ("rag4dmc", "one-candidate", "more candidates help"),
    ("ten-candidates", "one-candidate", "n = 10 beats n = 1"),
)


@dataclass(frozen=True)
class Comparison:
    """A difference in recall of two variants at a missing rate.

    Attributes
    ----------
    gain : Spread
    counts : bool
        Whether there was enough to win at this rate for any difference to count.
    measure : str
        Which recall, of `pipeline.evaluation.results.ranked.MEASURES`.
    """

    rate: float
    better: str
    worse: str
    claim: str
    gain: Spread
    counts: bool
    measure: str = "mean R@1"

    @property
    def holds(self) -> str:
        """ "yes" beyond the intervals over seeds and over test pairs, "reversed" beyond both the
        other way, else "open"; with "on these pairs" where it is beyond the one over seeds alone, so
        that another test set might say otherwise; "does not count" where nothing does."""
        if not self.counts:
            return "does not count"
        for sign, told in ((1, "yes"), (-1, "reversed")):
            seeds, rows = self.gain.over_seeds, self.gain.over_rows
            if sign * seeds.mean > seeds.half:
                return told if sign * rows.mean > rows.half else f"{told}, on these pairs"
        return "open"


def paper_way() -> dict[str, float]:
    """The paper's share of the way from drop to complete in mean R@1, by variant."""
    means = {name: sum(figures) / 2 for name, figures in PAPER.items()}
    wide = means["complete"] - means["drop"]
    return {name: (mean - means["drop"]) / wide for name, mean in means.items()}
