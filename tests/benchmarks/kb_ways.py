"""What each step of retrieval adds, on photographs and on remote sensing: the example found for unseen rows.

    python -m tests.benchmarks.kb_ways PHOTOGRAPHS.parquet REMOTE.parquet --cache FOLDER [--internal 100 300 1000]

Needs two Parquet files with columns image {bytes} and captions, and the encoders of
`tests.benchmarks.photographs`. Everything is chosen on the internal pairs, by the knowledge base
itself; figures are of rows that it never saw.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from kb.embeddings import MODALITIES, Modality, normalise, opposite
from kb.knowledge_base import KnowledgeBase
from kb.mapping import MappingSettings
from kb.recipe import KnowledgeBaseSettings, Recipe
from kb.retrieval import RetrievalSettings
from tests.benchmarks.kb_example import shifted
from tests.benchmarks.kb_photographs import Halves, pairs_of
from tests.benchmarks.photographs import Photographs, photographs

EXTERNAL = ("relevant", "mixed", "other", "shifted")


def ways(method: str) -> dict[str, KnowledgeBaseSettings]:
    """Each step beside the one before."""

    def settings(external: float | str, **retrieval: float | str) -> KnowledgeBaseSettings:
        return KnowledgeBaseSettings(
            mapping=MappingSettings(method=method, external=external),  # type: ignore[arg-type]
            retrieval=RetrievalSettings(**retrieval),  # type: ignore[arg-type]
        )

    return {
        "the paper's k and alpha": settings(0, mode="fusion", k=10, alpha=0.5, consensus=0),
        "k and alpha measured": settings(0, mode="fusion", consensus=0),
        "and external pairs fitted": settings("auto", mode="fusion", consensus=0),
        "and the mode measured": settings("auto", consensus=0),
        "and consensus": settings("auto"),
    }


def one_sentence(data: Photographs, rows: np.ndarray, sentence: int) -> Halves:
    """Pairs of a picture and one of its sentences."""
    return {"image": data.image[rows], "text": normalise(data.sentences[rows, sentence])}


def together(*parts: Halves) -> Halves:
    return {m: np.concatenate([part[m] for part in parts]) for m in MODALITIES}


def world(
    data: Photographs, others: Photographs, kind: str, internal: int, seed: int
) -> tuple[Halves, Halves, Halves]:
    """Internal pairs, external pairs of a kind, and pairs to ask by, none of them twice."""
    generator = np.random.default_rng(seed)
    order, away = generator.permutation(len(data)), generator.permutation(len(others))
    share = len(data) // 4
    own = one_sentence(data, order[:internal], 0)
    relevant = one_sentence(data, order[share : 3 * share], 4)
    asked = one_sentence(data, order[3 * share :][:1000], 0)
    noise = one_sentence(others, away[: 2 * share], 0)
    external = {
        "relevant": relevant,
        "mixed": together(relevant, noise),
        "other": noise,
        "shifted": shifted(relevant, seed, 0.6, 0.5),
    }[kind]
    return own, external, asked


def example_quality(kb: KnowledgeBase, asked: Halves) -> dict[Modality, np.ndarray]:
    """Per observed modality the cosine of the example's other half to the true one, [q]."""
    found = {}
    for modality in MODALITIES:
        rows = kb.retriever.search(asked[modality], modality).rows[:, 0]
        held = np.asarray(kb.embeddings[opposite(modality)][rows], np.float32)
        found[modality] = np.einsum("nd,nd->n", held, asked[opposite(modality)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("remote", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, nargs=2, default=[8000, 8000], help="pictures of each")
    parser.add_argument("--internal", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument("--external", nargs="*", choices=EXTERNAL, default=list(EXTERNAL))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--method", default="ridge", help="mapping.method; auto takes the network in"
    )
    options = parser.parse_args()
    sets = {
        "photographs": photographs(options.photographs, options.cache, options.count[0]),
        "remote sensing": photographs(options.remote, options.cache, options.count[1]),
    }
    print("example's text / picture like the hidden one; gain over the first way ± standard error")
    for name, data in sets.items():
        (others,) = (other for known, other in sets.items() if known != name)
        for kind in options.external:
            for internal in options.internal:
                for seed in range(options.seeds):
                    own, external, asked = world(data, others, kind, internal, seed)
                    told(
                        f"{name}, {kind}, {internal}, draw {seed}",
                        own,
                        external,
                        asked,
                        options.method,
                    )


def told(name: str, own: Halves, external: Halves, asked: Halves, method: str) -> None:
    """One world by each way, a line each."""
    first: dict[Modality, np.ndarray] = {}
    for way, settings in ways(method).items():
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            kb = KnowledgeBase.build(
                Path(folder) / "kb",
                pairs_of(own, "own"),
                [pairs_of(external, "web")],
                Recipe(settings, shared_space=False),
            )
            found = example_quality(kb, asked)
        first = first or found
        figures = []
        for modality, values in found.items():
            gain = values - first[modality]
            error = gain.std(ddof=1) / np.sqrt(len(gain))
            figures.append(f"{values.mean():.3f} ({gain.mean():+.3f} ± {error:.3f})")
        chosen = {key: kb.manifest["retrieval"][key] for key in ("mode", "k", "alpha", "consensus")}
        mapped = "/".join(kb.manifest["mapping"]["chosen"].values())
        print(
            f"  {name}, {way}: {' / '.join(figures)} {mapped} {list(chosen.values())}"
            f" {time.process_time() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
