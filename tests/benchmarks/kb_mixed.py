"""Any number of pairs, mixed from the few real ones of the example world.

Embeddings of the example world (or, without its checkpoint, of a seeded low-rank
world) mixed to any number. Each new pair is unit(sum of w_j z_j + noise) over a random row and 3
of its 8 nearest neighbours by joint embedding, the same w for both halves, w from a flat
Dirichlet distribution; the result is brought to 512-d by a fixed random orthonormal map, and a
little isotropic noise (length 0.1) keeps rows apart. So the intrinsic dimension is that of the
neighbourhoods, and is measured by the estimator of Levina and Bickel (2004) and printed.
External rows are turned and moved as one domain shift, and one in ten is noise: halves of two
different pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from kb.embeddings import MODALITIES, EmbeddingWriter, Modality, normalise, open_embeddings
from kb.filtering.clusters import joint
from kb.index.neighbours import top_k
from kb.pairs import Pairs

DIMENSION = 512
Halves = dict[Modality, np.ndarray]


def real_pairs(cache: Path) -> tuple[Halves, str]:
    """Embeddings of the example's target and external pairs, or a stand-in for them."""
    from tests.benchmarks import kb_example

    if (kb_example.EXAMPLE / "checkpoints" / "encoder").is_dir():
        parts = [kb_example.encoded(name, cache)[0] for name in ("target", "external")]
        joined = {m: np.concatenate([part[m] for part in parts]) for m in MODALITIES}
        return joined, "example world"
    generator = np.random.default_rng(0)
    concepts = generator.standard_normal((2500, 20))
    out: Halves = {}
    for modality in MODALITIES:
        view = generator.standard_normal((20, 128))
        out[modality] = normalise(concepts @ view + 0.5 * generator.standard_normal((2500, 128)))
    return out, "seeded low-rank world"


class Mixer:
    """Draws any number of pairs from a few real ones by mixing neighbours."""

    def __init__(self, pairs: Halves) -> None:
        both = joint(pairs["image"], pairs["text"])
        self.near = top_k(both, both, 9)[1]
        generator = np.random.default_rng(1)
        self.pairs: Halves = {}
        for modality in MODALITIES:
            square = generator.standard_normal((DIMENSION, DIMENSION))
            basis = np.linalg.qr(square)[0][: pairs[modality].shape[1]]
            self.pairs[modality] = (pairs[modality] @ basis).astype(np.float32)

    def draw(self, count: int, seed: int, noise_share: float = 0.0) -> Halves:
        """`count` pairs, float32 unit rows; the last share of them of mismatched halves."""
        generator = np.random.default_rng(seed)
        anchors = generator.integers(0, len(self.near), count)
        others = self.near[anchors][:, 1:]
        chosen = generator.permuted(others, axis=1)[:, :3]
        rows = np.concatenate([anchors[:, None], chosen], axis=1)
        weights = generator.dirichlet(np.ones(4), count).astype(np.float32)
        out: Halves = {}
        for modality in MODALITIES:
            mixed = np.einsum("nk,nkd->nd", weights, self.pairs[modality][rows])
            noise = generator.standard_normal(mixed.shape, dtype=np.float32)
            out[modality] = normalise(normalise(mixed) + 0.1 / DIMENSION**0.5 * noise)
        wrong = int(noise_share * count)
        if wrong:
            out["text"][-wrong:] = np.roll(out["text"][-wrong:], wrong // 2, axis=0)
        return out


def intrinsic_dimension(rows: np.ndarray, k: int = 20) -> float:
    """Maximum-likelihood estimate from distances to k neighbours (Levina and Bickel 2004)."""
    similarities, _ = top_k(rows[:1000], rows, k + 1)
    distances = np.sqrt((2 - 2 * similarities[:, 1:]).clip(1e-8))
    ratios = np.log(distances[:, -1:] / distances[:, :-1])
    return float(1 / (ratios.sum(axis=1) / (k - 1)).mean())


def shift(rows: np.ndarray, modality: Modality) -> np.ndarray:
    """One fixed domain shift: a turn by at most 0.5 radians in each plane and an offset of 0.2."""
    if modality not in _TURNS:
        from scipy.linalg import expm

        generator = np.random.default_rng(2 + MODALITIES.index(modality))
        skew = generator.standard_normal((DIMENSION, DIMENSION))
        skew -= skew.T
        move = generator.standard_normal(DIMENSION)
        _TURNS[modality] = (
            expm(skew * 0.5 / np.linalg.norm(skew, 2)).astype(np.float32),
            (0.2 * move / np.linalg.norm(move)).astype(np.float32),
        )
    turn, move = _TURNS[modality]
    return normalise(rows @ turn + move)


_TURNS: dict[Modality, tuple[np.ndarray, np.ndarray]] = {}


def write(mixer: Mixer, folder: Path, name: str, count: int, external: bool) -> Pairs:
    """Pairs on disk as float16, made and written in chunks."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {m: folder / f"{name}-{count}-{m}.npy" for m in MODALITIES}
    if not all(path.exists() for path in paths.values()):
        writers = {m: EmbeddingWriter(paths[m], DIMENSION) for m in MODALITIES}
        for seed, size in enumerate(_blocks(count, 20_000)):
            drawn = mixer.draw(size, 10 + 2 * seed + external, 0.1 if external else 0.0)
            for modality, writer in writers.items():
                rows = shift(drawn[modality], modality) if external else drawn[modality]
                writer.append(rows)
        for writer in writers.values():
            writer.close()
    ids = pa.array([f"{name}-{number}" for number in range(count)])
    table = pa.table({"id": ids, "source": pa.array([name]).take(pa.array(np.zeros(count, int)))})
    return Pairs(table, {m: open_embeddings(paths[m]) for m in MODALITIES})


def _blocks(count: int, size: int) -> Iterator[int]:
    for start in range(0, count, size):
        yield min(size, count - start)
