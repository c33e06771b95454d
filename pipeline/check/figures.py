"""What a check found, in figures: how like the truth what was generated is, and whether it pays.

All are means over checked pairs with a generated half, each with half the width of its 95 % interval;
pairs share no half with one another, and are independent. Similarity is the cosine to the true half by the
run's encoder, which also chose among the candidates: it flatters them a little where images and texts are
compared (`rag4dmc evaluate` takes another judge).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kb.embeddings import Modality
from pipeline.check.captions import cider_d
from pipeline.check.intervals import Interval, interval, paired, share_of
from pipeline.config.run import FEWEST_CHECKED

Figure = dict[str, float]


def figures(
    rows: Sequence[Mapping[str, Any]], half: Modality, references: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The figures of a half.

    Parameters
    ----------
    rows : sequence of mapping
        Checked pairs: `id`, `status`, `text` (what was generated), and `check`
        (`pipeline.check.portion.CHECK`).
    half : {"text", "image"}
    references : mapping
        True captions by id; needed for texts.

    Returns
    -------
    dict
        `checked` pairs, of which `generated` have one; `why` there are no figures, or each as `mean` and
        `half`: `similarity`; those of the `example`, of `random` halves; `gain` over the example;
        `better`, the share of pairs where it is better than the example, and `above`, where it is better
        than the median random half (with `low` and `high` in place of `half`, by Wilson 1927); `way`,
        the share of the way from random to the truth, and `example_way`; `cider`, of texts.
    """
    compared = [row["check"] for row in rows]
    made = [
        row
        for row, one in zip(rows, compared, strict=True)
        if one is not None and one["chosen"] is not None and one["random"] is not None
    ]
    counted: dict[str, Any] = {"checked": len(rows), "generated": len(made)}
    if len(made) < FEWEST_CHECKED:
        return counted | {
            "why": f"a generated {half} came of {len(made)} of {len(rows)} checked pairs, and fewer"
            f" than {FEWEST_CHECKED} tell nothing"
        }
    own, random, middle = (
        np.array([row["check"][name] for row in made], np.float64)
        for name in ("chosen", "random", "middle")
    )
    example = np.array(
        [np.nan if row["check"]["example"] is None else row["check"]["example"] for row in made]
    )
    truth = np.ones(len(made))
    found: dict[str, Any] = {
        "similarity": _told(interval(own)),
        "random": _told(interval(random)),
        "above": wilson(int((own > middle).sum()), len(made)),
        "way": _told(share_of(own, random, truth)),
    }
    grounded = np.isfinite(example)
    if grounded.sum() >= FEWEST_CHECKED:
        ours, theirs = own[grounded], example[grounded]
        found |= {
            "example": _told(interval(theirs)),
            "gain": _told(paired(ours, theirs)),
            "better": wilson(int((ours > theirs).sum()), len(ours)),
            "example_way": _told(share_of(theirs, random[grounded], truth[grounded])),
        }
    if half == "text":
        texts = [row["text"] for row in made]
        found["cider"] = _told(interval(cider_d(texts, [references[row["id"]] for row in made])))
    return counted | found


def _told(one: Interval) -> Figure:
    return {"mean": one.mean, "half": one.half}


def wilson(count: int, of: int) -> Figure:
    """A share with its 95 % interval, which holds for shares near 0 and 1 too (Wilson 1927).

    Examples
    --------
    >>> {name: round(value, 3) for name, value in wilson(20, 20).items()}
    {'mean': 1.0, 'low': 0.839, 'high': 1.0}
    """
    z, share = 1.959964, count / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * np.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return {
        "mean": share,
        "low": max(0.0, float(middle - half)),
        "high": min(1.0, float(middle + half)),
    }


def verdict(half: str, found: Mapping[str, Any]) -> str:
    """Whether a half pays, in a sentence with its figures, and what second looks gain where there are any.

    It pays where what is generated is more like the truth than the nearest pair's is, by more than the
    interval; it is not worth keeping where it is less like it, or no more so than a random one.
    """
    if "why" in found:
        return f"{half}s: not known: {found['why']}"
    return f"{_worth(half, found)}{_again(found.get('second_look'))}"


def _worth(half: str, found: Mapping[str, Any]) -> str:
    way, similarity, random = found["way"], found["similarity"], found["random"]
    said = (
        f"{half}s: {_pm(way, 2)} of the way from random to the truth (similarity"
        f" {_pm(similarity)}, random {random['mean']:.3f}"
    )
    if "example" not in found:
        worth = "keep them" if way["mean"] > way["half"] else "leave them out"
        return f"{said}; no example to compare with): {worth}"
    said += f", nearest example {found['example']['mean']:.3f})"
    gain = found["gain"]
    told = f"{_pm(gain, signed=True)} over the nearest example"
    if way["mean"] <= way["half"]:
        return f"{said}: no better than random, leave them out"
    if gain["mean"] > gain["half"]:
        return f"{said}: {told}, they pay"
    if gain["mean"] < -gain["half"]:
        return f"{said}: {told}, leave them out or take the example itself (kind: nearest)"
    return f"{said}: {told}, not shown to pay"


def _again(look: Mapping[str, Any] | None) -> str:
    """What second looks gained the pairs that had one, in a clause; none where it is not known."""
    if not look or "gain" not in look:
        return ""
    pays = "" if look["pays"] else ", not shown to pay"
    return (
        f"; a second look at the {look['share']:.0%} below {look['below']:g} gains them"
        f" {_pm(look['gain'], signed=True)}{pays}"
    )


def told(half: str, found: Mapping[str, Any]) -> str:
    """The figures of a half in a line, for the summary."""
    if "why" in found:
        return f"check of {half}s: {found['why']}"
    parts = [f"similarity to the truth {_pm(found['similarity'])}"]
    if "example" in found:
        parts.append(f"nearest example {_pm(found['example'])}")
    parts.append(f"random {_pm(found['random'])}")
    if "better" in found:
        better = found["better"]
        parts.append(
            f"better than the example in {better['mean']:.0%} ({better['low']:.0%} to"
            f" {better['high']:.0%})"
        )
    if "cider" in found:
        parts.append(f"CIDEr {_pm(found['cider'], 2)}")
    if "gain" in (found.get("weights") or {}):
        weights = found["weights"]
        used = "used" if weights["used"] else "not used"
        parts.append(f"learned weights gain {_pm(weights['gain'], signed=True)}, {used}")
    if found.get("draws"):
        drawn = found["draws"]
        parts.append(
            f"{drawn['mean']:.1f} of {drawn['most']} candidates drawn, which costs"
            f" {_pm(drawn['loss'])}"
        )
    if found.get("second_look"):
        look = found["second_look"]
        of = f"{look['looked']} of {found['generated']} pairs were looked at again"
        gain = f", which gains them {_pm(look['gain'], signed=True)}" if "gain" in look else ""
        parts.append(f"{of}{gain}")
    if found.get("calibration"):
        known = found["calibration"]
        parts.append(f"confidence is off by {known['error']:.3f} ({known['chance']:.3f} by chance)")
    return f"check of {half}s, {found['generated']} pairs: {', '.join(parts)}"


def _pm(one: Mapping[str, float], digits: int = 3, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{one['mean']:{sign}z.{digits}f} ± {one['half']:.{digits}f}"
