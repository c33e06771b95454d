"""Tables of what `tests.benchmarks.kb_ways` measured: python -m tests.benchmarks.kb_ways_table RESULTS.jsonl

Gains are means over draws (and over what else a cell sums up), their standard errors those of the
rows, paired within a draw. A loss is a gain that lies more than two standard errors below nought.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kb.contents import RETRIEVAL
from kb.embeddings import MODALITIES
from tests.benchmarks.kb_ways import DEFAULT, PAPERS, WAYS, base_of
from tests.benchmarks.kb_worlds import EXTERNAL, WORLDS

Line = dict[str, Any]


def gain(lines: Sequence[Line], way: str, modality: str) -> tuple[float, float]:
    """Mean gain of a way, and its standard error; NaN where nothing was measured."""
    found = [line["ways"][way][modality][1:] for line in lines if way in line["ways"]]
    if not found:
        return np.nan, np.nan
    values = np.array(found)
    return float(values[:, 0].mean()), float(np.sqrt((values[:, 1] ** 2).sum()) / len(values))


def told(lines: Sequence[Line], way: str) -> str:
    """A missing text's example, and a missing picture's."""
    figures = []
    for modality in MODALITIES:
        mean, error = gain(lines, way, str(modality))
        figures.append(f"{mean:+.3f} ± {error:.3f}" + (" **loss**" if mean < -2 * error else ""))
    return " / ".join(figures)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for cells in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(cells) + " |")
    print()


def main() -> None:
    lines: list[Line] = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]

    def where(test: Callable[[str, str, int], bool]) -> list[Line]:
        return [line for line in lines if test(*line["cell"][:3])]

    sizes = sorted({line["cell"][2] for line in lines})
    at_hand = [world for world in WORLDS if where(lambda w, _, __, own=world: w == own)]
    print(f"{len(lines)} cells; by internal pairs, the default over the paper's:\n")
    rows = []
    for world in at_hand:
        for kind in EXTERNAL:
            cells = []
            for size in sizes:
                some = where(lambda w, k, n, own=(world, kind, size): (w, k, n) == own)
                cells.append(f"{told(some, DEFAULT)} ({len(some)})")
            rows.append([world, kind, *cells])
    table(["world", "external pairs", *map(str, sizes)], rows)
    print("CIDEr-D of the example's caption, the default over the paper's:\n")
    rows = []
    for world in at_hand:
        cells = []
        for kind in EXTERNAL:
            some = where(lambda w, k, _, own=(world, kind): (w, k) == own)
            mean, error = gain(some, DEFAULT, "CIDEr-D")
            before = np.mean([np.subtract(*s["ways"][DEFAULT]["CIDEr-D"][:2]) for s in some])
            cells.append(f"{before:.3f} {mean:+.3f} ± {error:.3f}")
        rows.append([world, *cells])
    table(["world", *EXTERNAL], rows)
    steps = [way for way in WAYS if way != PAPERS]
    for world in at_hand:
        print(f"{world}, over the paper's, all numbers of internal pairs:\n")
        some = {kind: where(lambda w, k, _, own=(world, kind): (w, k) == own) for kind in EXTERNAL}
        rows = [[way, *(told(some[kind], way) for kind in EXTERNAL)] for way in steps]
        table(["way", *EXTERNAL], rows)
    others = [way for line in lines for way in line["ways"] if way not in WAYS]
    print("What is off, over what stands without it; all kinds of external pairs, one draw:\n")
    rows = []
    for way in dict.fromkeys(way for way in others if way != base_of(way)):
        cells = [told(where(lambda w, _, __, own=world: w == own), way) for world in at_hand]
        rows.append([f"{way} (over {base_of(way)})", *cells])
    table(["way", *at_hand], rows)
    print("losses of the steps, cell by cell (all draws):")
    for way in steps:
        for world in at_hand:
            for kind in EXTERNAL:
                for size in sizes:
                    some_of = where(lambda w, k, n, own=(world, kind, size): (w, k, n) == own)
                    for modality in MODALITIES:
                        mean, error = gain(some_of, way, str(modality))
                        if mean < -2 * error:
                            how = [[line["ways"][way][n] for n in ("mapping", *RETRIEVAL)]
                                   for line in some_of]  # fmt: skip
                            print(f"  {way}; {world}, {kind}, {size}, from {modality}: "
                                  f"{mean:+.4f} ± {error:.4f} {how}")  # fmt: skip


if __name__ == "__main__":
    main()
