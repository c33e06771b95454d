"""The knowledge base at scale: filter, align and index; search against bare faiss; memory.

Run from the checkout: python -m tests.benchmarks.kb_scale [--external N] [--internal N] [--full]
[--only data|build|search|memory|fit]

The data is that of `tests.benchmarks.kb_mixed`. `--full` is one million external and 20,000 internal pairs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from kb.embeddings import (
    MODALITIES,
    chunks,
    normalise,
    take,
)
from kb.fitting import external_side
from kb.index import EmbeddingIndex
from kb.index.kinds import IndexSettings
from kb.knowledge_base import KnowledgeBase
from kb.mapping import CrossModalMapping, MappingSettings
from kb.pairs import Pairs
from kb.recipe import KnowledgeBaseSettings, Recipe
from kb.stopwatch import peak_bytes
from kb.storage import read_manifest
from tests.benchmarks.kb_mixed import (
    DIMENSION,
    Halves,
    Mixer,
    intrinsic_dimension,
    real_pairs,
    write,
)

# Neighbours that stage 1 hands to stage 2, and how often each search is timed.
DEPTHS = (5, 10, 50, 400)
# And with consensus, by these.
AGREEING = (50, 400)
TURNS = 15


def measure_build(internal: Pairs, external: Pairs, folder: Path) -> KnowledgeBase:
    # The mapping is not what is measured here.
    settings = KnowledgeBaseSettings(mapping=MappingSettings(method="ridge", sample=2000))
    before = peak_bytes()
    kb = KnowledgeBase.build(folder, internal, [external], Recipe(settings))
    steps = {step["step"]: step["seconds"] for step in kb.manifest["steps"]}
    used = {step["step"]: step["cpu_seconds"] for step in kb.manifest["steps"]}
    peaks = {step["step"]: step["peak_bytes"] for step in kb.manifest["steps"]}
    for name, seconds in steps.items():
        print(
            f"  {name:14} {seconds:8.1f} s, {used[name]:8.1f} s of processor time, "
            f"peak so far {peaks[name] / 1e9:.2f}e9 bytes"
        )
    cleaned = sum(float(steps[name]) for name in ("purification", "pairs", "index"))
    filtered = kb.manifest["purification"]["filter"]
    for modality in MODALITIES:
        fitted = kb.manifest["purification"]["alignment"][modality]
        print(f"  {modality}: gamma {fitted['gamma']}, {len(fitted['history'])} rounds (refit)")
    print(f"  verdicts {filtered['verdicts']}, index {kb.manifest['indexes']['image']}")
    processor = sum(float(used[name]) for name in ("purification", "pairs", "index"))
    print(
        f"filter + align + index: {cleaned:.0f} s, ratio to 600 s: {cleaned / 600:.2f}; "
        f"{processor:.0f} s of processor time, on two free cores at least {processor / 2:.0f} s"
    )
    peak = peak_bytes()
    print(
        f"peak memory {peak / 1e9:.2f}e9 bytes (before the build {before / 1e9:.2f}e9), ratio to "
        f"6e9: {peak / 6e9:.2f}",
        flush=True,
    )
    return kb


def measure_memory(arguments: argparse.Namespace) -> None:
    """Peaks of two builds, in processes of their own: what grows beside the index?"""
    sizes = (arguments.external // 2, arguments.external)
    beside = []
    for size in sizes:
        command = [sys.executable, "-m", "tests.benchmarks.kb_scale", "--external", str(size)]
        command += ["--internal", str(arguments.internal), "--folder", str(arguments.folder)]
        # Making the data has a peak of its own.
        for part in ("data", "build"):
            subprocess.run([*command, "--only", part], check=True)
        folder = arguments.folder / f"kb-{size}"
        peak = max(step["peak_bytes"] for step in read_manifest(folder)["steps"])
        index = sum(path.stat().st_size for path in (folder / "indexes").glob("*.faiss"))
        beside.append(peak - index)
        print(f"{size} external pairs: peak {peak / 1e9:.3f}e9 bytes, index {index / 1e9:.3f}e9")
    grown = (beside[1] - beside[0]) / (sizes[1] - sizes[0])
    print(
        f"beside the index the peak grows by {grown:.0f} bytes a pair, of the {4 * DIMENSION} that "
        f"its embeddings have on disk: {grown / (4 * DIMENSION):.2f}"
    )


def measure_fit(folder: Path, count: int, pairs: int = 2000) -> None:
    """The mapping's contest alone, on external pairs that are drawn at random, but for the networks."""
    generator = np.random.default_rng(0)
    view = generator.standard_normal((DIMENSION, DIMENSION), np.float32) / DIMENSION**0.5

    def drawn(rows: int) -> Halves:
        image = generator.standard_normal((rows, DIMENSION), np.float32)
        text = image @ view + generator.standard_normal((rows, DIMENSION), np.float32)
        return {"image": normalise(image), "text": normalise(text)}

    folder.mkdir(parents=True, exist_ok=True)
    paths = {m: folder / f"fit-{count}-{m}.npy" for m in MODALITIES}
    maps = {
        m: np.lib.format.open_memmap(path, "w+", np.float16, (count, DIMENSION))
        for m, path in paths.items()
    }
    for start in range(0, count, 65_536):
        for modality, block in drawn(min(65_536, count - start)).items():
            maps[modality][start : start + len(block)] = block
    del maps
    columns = {f"{m}_digest": generator.integers(0, 2**63, count, np.uint64) for m in MODALITIES}
    table = pa.table({"origin": ["external"] * count, **columns})
    internal = Pairs(
        pa.table({"id": list(map(str, range(pairs))), "source": ["own"] * pairs}), drawn(pairs)
    )
    before, start, used = peak_bytes(), time.perf_counter(), time.process_time()
    stored = {m: np.load(path, mmap_mode="r") for m, path in paths.items()}
    side = external_side(table, stored, internal, 0)
    accumulated = time.perf_counter() - start
    own = internal.embeddings
    for method in ("ridge", "attended"):
        mapping = CrossModalMapping(MappingSettings(method=method))  # type: ignore[arg-type]
        mapping.fit(own["image"], own["text"], None, side)
        print(f"{method}: {mapping.chosen_}, {time.perf_counter() - start:.0f} s so far")
    print(
        f"the mapping's fit on {count} external pairs: sums {accumulated:.0f} s, all "
        f"{time.perf_counter() - start:.0f} s ({time.process_time() - used:.0f} s of processor time), "
        f"peak {peak_bytes() / 1e9:.2f}e9 bytes (before {before / 1e9:.2f}e9)"
    )
    for path in paths.values():
        path.unlink()


def measure_search(
    kb: KnowledgeBase, queries: Halves, count: int, k: int, weight: float = 0
) -> None:
    """Both stages against a bare faiss search of the same index for the same k."""
    image = queries["image"][:count]
    retriever = kb.retriever
    changes = {"mode": "fusion", "k": k, "alpha": 0.5, "consensus": weight}
    retriever.settings = retriever.settings.model_copy(update=changes)
    index = retriever.indexes["image"].index
    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: index.search(image, k),
        "both": lambda: retriever.search(image, "image"),
    }
    ways["both"]()
    clock = {name: np.zeros(TURNS) for name in ways}
    processor = {name: np.zeros(TURNS) for name in ways}
    for turn in range(TURNS):
        for name, way in ways.items():
            begun, used = time.perf_counter(), time.process_time()
            way()
            clock[name][turn] = time.perf_counter() - begun
            processor[name][turn] = time.process_time() - used
    start = time.perf_counter()
    kb.pseudo(image, "image")
    mapping = time.perf_counter() - start
    ratios, by_processor = clock["both"] / clock["bare"], processor["both"] / processor["bare"]
    print(
        f"{count} queries, k {k}{', consensus' if weight else ''}: faiss {np.median(clock['bare']):.2f} s, both stages "
        f"{np.median(clock['both']):.2f} s, of which the mapping {mapping:.2f} s: ratio "
        f"{np.median(ratios):.2f} (median of {TURNS} turns; the best of each "
        f"{clock['both'].min() / clock['bare'].min():.2f}); by processor time "
        f"{np.median(by_processor):.2f}",
        flush=True,
    )


def measure_index(kb: KnowledgeBase, queries: Halves, count: int) -> None:
    """The inverted lists against the flat index on the same rows: recall and speed."""
    import faiss

    image = queries["image"][:count]
    approximate = kb.retriever.indexes["image"]
    if approximate.kind == "flat":
        approximate = EmbeddingIndex.build(kb.embeddings["image"], IndexSettings(index="ivf"))
    flat = faiss.IndexFlatIP(DIMENSION)
    for block in chunks(kb.embeddings["image"], 65_536):
        flat.add(block)
    start = time.process_time()
    _, truth = flat.search(image, 10)
    exact = time.process_time() - start
    start = time.process_time()
    _, found = approximate.search(image, 10)
    quick = time.process_time() - start
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, found, strict=True)])
    print(
        f"{approximate.kind} ({approximate.evidence}) on {len(kb)} rows, {count} queries: recall@10 "
        f"{recall:.3f} of flat, {exact / quick:.1f} times its speed (processor time {exact:.2f} s, "
        f"{quick:.2f} s)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--external", type=int, default=20_000)
    parser.add_argument("--internal", type=int, default=2_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--full", action="store_true", help="1,000,000 and 20,000")
    parser.add_argument("--folder", type=Path, default=Path("build/kb-benchmarks"))
    parser.add_argument(
        "--only",
        choices=["data", "build", "search", "memory", "fit"],
        help="only write the data; up to the knowledge base; only search the one that stands; "
        "compare the memory of building from half the external pairs and from all; only the mapping's fit",
    )
    arguments = parser.parse_args()
    if arguments.full:
        arguments.external, arguments.internal = 1_000_000, 20_000
    if arguments.only == "memory":
        measure_memory(arguments)
        return
    if arguments.only == "fit":
        measure_fit(arguments.folder, arguments.external)
        return
    real, name = real_pairs(arguments.folder)
    mixer = Mixer(real)
    internal = write(mixer, arguments.folder, "internal", arguments.internal, external=False)
    external = write(mixer, arguments.folder, "external", arguments.external, external=True)
    load = os.getloadavg()[0]
    sample = take(external.embeddings["image"], np.arange(min(20_000, arguments.external)))
    print(f"{os.cpu_count()} cores, load average {load:.1f} before the start")
    print(
        f"{arguments.external} external, {arguments.internal} internal pairs of {DIMENSION}-d, mixed "
        f"from {len(mixer.near)} of the {name}; intrinsic dimension {intrinsic_dimension(sample):.1f}"
    )
    del sample
    folder = arguments.folder / f"kb-{arguments.external}"
    if arguments.only == "data":
        return
    if arguments.only == "search":
        kb = KnowledgeBase.load(folder, thorough=False)
    else:
        kb = measure_build(internal, external, folder)
    if arguments.only == "build":
        return
    queries = mixer.draw(arguments.queries, 5)
    for k in DEPTHS:
        measure_search(kb, queries, arguments.queries, k)
    for k in AGREEING:
        measure_search(kb, queries, arguments.queries, k, weight=0.5)
    measure_index(kb, queries, arguments.queries)


if __name__ == "__main__":
    main()
