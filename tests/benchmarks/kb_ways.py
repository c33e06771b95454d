"""What each step of retrieval adds, alone and together: the example found for unseen rows.

    python -m tests.benchmarks.kb_ways RESULTS.jsonl [--photographs P.parquet --remote R.parquet] --cache FOLDER

Everything is chosen on the internal pairs, by the parts and rules of the knowledge base; figures
are of rows that it never saw. A cell (a world, a kind of external pairs, a number of internal
ones, a draw) is a line of the results, and what stands there is not measured again;
`tests.benchmarks.kb_ways_table` makes tables of it. The Parquet files have columns image {bytes}
and captions, and need the encoders of `tests.benchmarks.photographs`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kb import contents
from kb.embeddings import MODALITIES
from tests.benchmarks.kb_cell import Cell, Chosen, Quality
from tests.benchmarks.kb_worlds import EXTERNAL, WORLDS, World, worlds

PAPER = {"mode": "fusion", "k": 10, "alpha": 0.5, "consensus": 0}
# Candidates of the mapping: (external pairs too, attention too).
OWN, WITH_EXTERNAL, WITH_ATTENTION, ALL = (False, False), (True, False), (False, True), (True, True)
MEASURED = {"mode": "fusion", "consensus": 0}
DIVERSITIES = (0.0, 0.1, 0.25, 0.5)
PAPERS = "the paper's"
DEFAULT = "and consensus: the default"
WAYS: dict[str, tuple[tuple[bool, bool], dict[str, Any]]] = {
    PAPERS: (OWN, PAPER),
    "k and alpha alone": (OWN, MEASURED),
    "external pairs alone": (WITH_EXTERNAL, PAPER),
    "attention alone": (WITH_ATTENTION, PAPER),
    "mode alone": (OWN, PAPER | {"mode": "auto"}),
    "consensus alone": (OWN, PAPER | {"consensus": "auto"}),
    "k, alpha, external": (WITH_EXTERNAL, MEASURED),
    "and attention": (ALL, MEASURED),
    "and mode": (ALL, {"consensus": 0}),
    DEFAULT: (ALL, {}),
}


def measured(cell: Cell, thorough: bool) -> dict[str, Any]:
    """Every way: per observed modality its mean, and its gain over another with the standard error.

    What is off by default is measured where it is to be thorough.
    """
    found: dict[str, tuple[Quality, Chosen]] = {}
    for way, how in WAYS.items():
        chosen = cell.choose(*how)
        found[way] = cell.quality(chosen), chosen
    by_score = found["and attention"][1]
    default = found[DEFAULT][1]
    if thorough:
        for name, quality in cell.learned(by_score).items():
            found[f"fusion by {name}"] = quality, by_score
        for diversity in DIVERSITIES:
            best, mean = cell.several(default, diversity)
            found[f"best of 3, diversity {diversity:g}"] = best, default
            found[f"mean of 3, diversity {diversity:g}"] = mean, default
        found["k all"] = cell.all_rows(by_score)
    told: dict[str, Any] = {}
    words = cell.cider(found[PAPERS][1])
    for way, (quality, chosen) in found.items():
        base = base_of(way)
        told[way] = {"over": base, "mapping": chosen.mapping}
        told[way] |= {n: getattr(chosen.retrieval, n) for n in contents.RETRIEVAL}
        for modality, values in quality.items():
            told[way][str(modality)] = over(values, found[base][0][modality])
        if way == DEFAULT:
            told[way]["CIDEr-D"] = over(cell.cider(chosen), words)
    return told


def base_of(way: str) -> str:
    """The way that another is compared with."""
    if way.startswith(("fusion by", "k all")):
        return "and attention"
    if ", diversity" in way:
        return way.split(",")[0] + ", diversity 0"
    return PAPERS


def over(values: np.ndarray, base: np.ndarray) -> list[float]:
    """The mean, and the gain over others by row with its standard error."""
    gain = values - base
    return [float(values.mean()), float(gain.mean()), float(gain.std(ddof=1) / len(gain) ** 0.5)]


def cells(options: argparse.Namespace) -> Sequence[tuple[str, str, int, int]]:
    """What is asked for and does not stand in the results, draws in turn."""
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    done = {tuple(json.loads(line)["cell"]) for line in lines}
    wanted = (
        (world, kind, internal, seed)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for internal in options.internal
        for kind in options.external
        for world in options.world
    )
    return [cell for cell in wanted if cell not in done]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--remote", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/kb-benchmarks"))
    parser.add_argument("--count", type=int, nargs=2, default=[2400, 4000], help="pictures of each")
    parser.add_argument("--world", nargs="*", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--internal", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument("--external", nargs="*", choices=EXTERNAL, default=list(EXTERNAL))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--networks", action="store_true", help="take the networks in, too")
    options = parser.parse_args()
    paths = {"photographs": options.photographs, "remote sensing": options.remote}
    counts = dict(zip(paths, options.count, strict=True))
    given = {name: path for name, path in paths.items() if path is not None}
    at_hand: dict[str, World] = worlds(given, options.cache, counts)
    for world, kind, internal, seed in cells(options):
        start = time.process_time()
        own, external, asked = at_hand[world].draw(kind, internal, seed)
        shared = at_hand[world].shared_space
        told = measured(Cell(own, external, asked, shared, options.networks), seed == 0)
        spent = time.process_time() - start
        line = {"cell": [world, kind, internal, seed], "seconds": round(spent, 1), "ways": told}
        with options.results.open("a") as sink:
            sink.write(json.dumps(line) + "\n")
        figures = " / ".join("{1:+.3f} ± {2:.3f}".format(*told[DEFAULT][m])
                             for m in MODALITIES)  # fmt: skip
        print(world, kind, internal, seed, figures, f"{spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
