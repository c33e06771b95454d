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

from kb.embeddings import MODALITIES
from tests.benchmarks.kb_ways import DEFAULT
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

    ways = list(dict.fromkeys(way for line in lines for way in line["ways"]))
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
    for world in at_hand:
        print(f"{world}, all numbers of internal pairs:\n")
        rows = []
        for way in ways:
            if way == "the paper's":
                continue
            cells = [
                told(where(lambda w, k, _, own=(world, kind): (w, k) == own), way)
                for kind in EXTERNAL
            ]
            over = next(line["ways"][way]["over"] for line in lines if way in line["ways"])
            rows.append([way + ("" if over == "the paper's" else f" (over `{over}`)"), *cells])
        table(["way", *EXTERNAL], rows)
    print("losses, cell by cell (all draws):")
    for way in ways:
        for world in at_hand:
            for kind in EXTERNAL:
                for size in sizes:
                    some = where(lambda w, k, n, own=(world, kind, size): (w, k, n) == own)
                    for modality in MODALITIES:
                        mean, error = gain(some, way, str(modality))
                        if mean < -2 * error:
                            chosen = [{k: v for k, v in s["ways"][way].items()
                                       if k in ("mapping", "mode", "k", "alpha", "consensus")}
                                      for s in some if way in s["ways"]]  # fmt: skip
                            print(f"  {way}; {world}, {kind}, {size}, {modality}: {mean:+.4f} ± "
                                  f"{error:.4f} {chosen}")  # fmt: skip


if __name__ == "__main__":
    main()
