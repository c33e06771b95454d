"""What is measured by what it should not know, on photographs with five sentences each.

    python -m tests.benchmarks.kb_photographs flickr8k.parquet --noise rsicd.parquet --cache FOLDER

Needs two Parquet files with columns image {bytes} and captions, the second of other pictures, and
the encoders of `tests.benchmarks.photographs`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kb.contents import id_array
from kb.embeddings import MODALITIES, Modality, opposite
from kb.filtering import FilterSettings
from kb.fitting import expected_queries
from kb.index import EmbeddingIndex, IndexSettings
from kb.index.neighbours import exact_search
from kb.knowledge_base import KnowledgeBase
from kb.mapping import CrossModalMapping, MappingSettings
from kb.mapping.held_out import HeldOut
from kb.pairs import Pairs
from kb.purification import Purification
from kb.recipe import KnowledgeBaseSettings, Recipe
from kb.retrieval import FusionRetriever, RetrievalSettings
from kb.retrieval.leave_one_out import LeaveOneOut, Point, select_retrieval
from tests.benchmarks.kb_example import shifted
from tests.benchmarks.photographs import Photographs, photographs

Halves = dict[Modality, np.ndarray]


def pairs_of(halves: Halves, source: str) -> Pairs:
    count = len(halves["image"])
    ids = [f"{source}-{number:05d}" for number in range(count)]
    return Pairs(pa.table({"id": ids, "source": [source] * count}), halves)


def shared(data: Photographs, seeds: int, pictures: int = 240) -> None:
    """k and alpha as chosen by row and by picture, and what they give on unseen photographs."""
    unseen = len(data) - pictures
    print("five rows a photograph: chosen k and alpha, evidence, quality on unseen photographs")
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(data))
        halves = data.rows(order[:pictures])
        fresh = data.rows(order[pictures : pictures + unseen])
        queries = {m: rows[:: len(rows) // unseen] for m, rows in fresh.items()}
        pairs = pairs_of(halves, "own")
        indexes = {m: EmbeddingIndex.build(halves[m]) for m in MODALITIES}
        for name, groups in (("by row", None), ("by picture", pairs.groups())):
            mapping = CrossModalMapping(random_state=seed).fit(
                halves["image"], halves["text"], groups
            )
            retriever = FusionRetriever(
                halves, indexes, id_array(pairs.table), mapping,
                RetrievalSettings(mode="fusion", consensus=0), False, pairs.digests,
            )  # fmt: skip
            assert mapping.out_of_fold_ is not None
            ids = pairs.table["id"].to_pylist()
            without = None if groups is None else pairs.digests
            chosen, evidence = select_retrieval(
                LeaveOneOut(retriever, halves, ids, without), mapping.out_of_fold_
            )
            best = max(evidence, key=lambda entry: entry["mean"])
            points = {name: (int(best["k"]), float(best["alpha"])), "defaults": (10, 0.5)}
            trials = LeaveOneOut(retriever, queries, [f"unseen-{n}" for n in range(unseen)])
            for point, (k, alpha) in points.items():
                way = Point("fusion", k, alpha)
                found = {
                    m: trials.quality(m, [way], mapping.map(queries[m], source=m))[way]
                    for m in MODALITIES
                }
                quality = " / ".join(f"{found[m].mean():.3f}" for m in MODALITIES)
                told = f"{best['image']:.2f} / {best['text']:.2f}" if point == name else "-"
                print(f"  seed {seed} mapping {name}, {point}: k {k} alpha {alpha} {chosen.mode}"
                      f" evidence {told} unseen {quality} ({mapping.chosen_})", flush=True)  # fmt: skip


def joined(data: Photographs, noise: Photographs) -> None:
    """Verdicts on the same pairs at the build, and when they join."""
    print("external pairs kept of relevant / of other ones, at the build and when they join")
    order = np.random.default_rng(0).permutation(len(data))
    own, relevant = data.pairs(order[: len(data) // 4]), data.pairs(order[len(data) // 4 :])
    other = noise.pairs(np.arange(len(noise)))
    turned = shifted({m: np.concatenate([relevant[m], other[m]]) for m in MODALITIES}, 0, 0.6, 0.5)
    first = pairs_of(turned, "web")
    second = Pairs(
        first.table.set_column(0, "id", pa.array([f"x{n}" for n in range(len(first))])), turned
    )
    both = Pairs(
        pa.concat_tables([first.table, second.table]),
        {m: np.concatenate([turned[m]] * 2) for m in MODALITIES},
    )
    count = len(relevant["image"])
    for provisional in (False, True):
        recipe = Recipe(
            KnowledgeBaseSettings(
                mapping=MappingSettings(method="ridge"),
                retrieval=RetrievalSettings(k=10, alpha=0.5),
                filter=FilterSettings(provisional_alignment=provisional),
            ),
            shared_space=False,
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kb"
            KnowledgeBase.build(path, pairs_of(own, "own"), [first], recipe)
            fitted = Purification.load(path)
            final = Purification(fitted.filter, fitted.alignments, None).judge(turned).kept
            KnowledgeBase.update(path, pairs_of(own, "own"), [both], recipe)
            table = pq.read_table(path / "verdicts.parquet")
        kept = np.array(table["verdict"].to_pylist()) == "kept"
        for name, of in (
            ("at the build", kept[: len(first)]),
            ("joined", kept[len(first) :]),
            ("joined, as judged by the final rotation", final),
        ):
            print(f"  provisional_alignment {provisional}, {name}: {of[:count].sum()} of {count} /"
                  f" {of[count:].sum()} of {len(first) - count}", flush=True)  # fmt: skip


def standards(data: Photographs, count: int = 500) -> None:
    """Mean and deviation of the cosine of pictures to what their texts predict, by who predicts."""
    print("cosine of a picture to what is predicted of its text: mean, deviation")
    order = np.random.default_rng(0).permutation(len(data))
    rows, unseen = data.pairs(order[:count]), data.pairs(order[count : 2 * count])
    mapping = CrossModalMapping().fit(rows["image"], rows["text"])
    assert mapping.out_of_fold_ is not None
    for name, predicted, truth in (
        ("fitted on the pair", mapping.map(rows["text"], source="text"), rows["image"]),
        ("out of fold", mapping.out_of_fold_["text"], rows["image"]),
        ("pairs unseen", mapping.map(unseen["text"], source="text"), unseen["image"]),
    ):
        cosine = np.einsum("nd,nd->n", predicted, truth)
        print(
            f"  {name}: {cosine.mean():.4f} {cosine.std():.4f} ({mapping.chosen_['text']})",
            flush=True,
        )


def probes(data: Photographs) -> None:
    """Recall of inverted lists for the queries that they get, by what the probes were tuned by."""
    print("recall at 10 of inverted lists for unseen queries, by what the probes are tuned by")
    base = len(data) * 3 // 4
    order = np.random.default_rng(0).permutation(len(data))
    rows, unseen = data.pairs(order[:base]), data.pairs(order[base:])
    pairs = pairs_of(rows, "own")
    mapping = CrossModalMapping(MappingSettings(method="ridge")).fit(rows["image"], rows["text"])
    settings = IndexSettings(index="ivf")
    for mode in ("fusion", "cross"):
        recipe = Recipe(
            KnowledgeBaseSettings(retrieval=RetrievalSettings(mode=mode)), shared_space=False
        )
        assert mapping.out_of_fold_ is not None
        held_out = HeldOut(pairs.table["id"].to_pylist(), mapping.out_of_fold_)
        expected = expected_queries(pairs, mapping, held_out, recipe)
        for modality in MODALITIES:
            asked = unseen[modality]
            if mode == "cross":
                asked = mapping.map(unseen[opposite(modality)], source=opposite(modality))
            truth = exact_search(asked, rows[modality], 10)[1]
            for name, queries in (("rows", None), ("queries", expected[modality])):
                index = EmbeddingIndex.build(rows[modality], settings, queries=queries)
                found = index.search(asked, 10)[1]
                recall = np.mean(
                    [len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, found, strict=True)]
                )
                told = list(index.evidence["recall_at_10"].values())[-1]
                print(f"  {mode}, index of {modality}s, tuned by {name}: {index.evidence['probes']} of"
                      f" {index.evidence['lists']} lists, evidence {told:.3f}, recall {recall:.3f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1300, help="photographs used")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["shared", "joined", "standards", "probes"])
    options = parser.parse_args()
    data = photographs(options.photographs, options.cache, options.count)
    if "shared" in options.only:
        shared(data, options.seeds)
    if "joined" in options.only:
        joined(data, photographs(options.noise, options.cache, 400))
    if "standards" in options.only:
        standards(data)
    if "probes" in options.only:
        probes(data)


if __name__ == "__main__":
    main()
