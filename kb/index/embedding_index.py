"""Nearest-neighbour index over one modality's embeddings: faiss, its kind chosen by size."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from kb.device import MOST_SELECTED, on_gpu, resolve_device
from kb.embeddings import InvalidEmbedding, Rows, chunks, take
from kb.index.kinds import PQ_FROM, REFINE, IndexSettings, Kind, kind_for
from kb.index.neighbours import exact_search

logger = logging.getLogger(__name__)

RECALL_GOAL = 0.96
RECALL_QUERIES = 256
# Above this a query has met itself, to half precision.
ITSELF = 1 - 1e-4
# Queries that a thread takes at once through the inverted lists at most.
QUERIES_IN_TURN = 512
# So few share too few lists for their order to pay.
FEW_QUERIES = 1024


class EmbeddingIndex:
    """A faiss index of unit rows under the inner product.

    Made by `build` or `load`. Similarities it answers with are approximate for compressed kinds;
    `FusionRetriever` scores what it fetches exactly.

    Attributes
    ----------
    kind : str
    evidence : dict
        Lists, the rows they were trained for, probes, and the recall at 10 measured for each
        number of probes tried; the kind asked for, where it takes more rows.
    """

    def __init__(self, index: Any, kind: Kind, evidence: dict[str, Any], device: str) -> None:
        self.kind = kind
        self.evidence = evidence
        self.device = device
        self.index = index
        self._on_gpu: Any = None

    @classmethod
    def build(
        cls,
        embeddings: Rows,
        settings: IndexSettings | None = None,
        random_state: int = 0,
        device: str = "cpu",
        queries: np.ndarray | None = None,
        chunk: int = 16_384,
    ) -> EmbeddingIndex:
        """Trains on a seeded sample and adds all rows in chunks.

        Parameters
        ----------
        embeddings : shape [n, d]
            May be a memory map.
        queries : shape [q, d], optional
            Such as it will be asked for, to tune the probes by; by default a sample of its rows.
        """
        import faiss

        settings = settings or IndexSettings()
        count, dimension = embeddings.shape
        kind = kind_for(count, settings.index)
        device = resolve_device(device)
        if kind == "flat":
            evidence = {}
            if settings.index not in ("auto", "flat"):
                evidence = {"asked_for": settings.index, "takes_rows": PQ_FROM}
            built = cls(faiss.IndexFlatIP(dimension), kind, evidence, device)
            for block in chunks(embeddings, chunk):
                built.index.add(block)
            return built
        if settings.lists == "auto":
            lists = max(1, min(round(2 * np.sqrt(count)), count // 32))
        else:
            lists = max(1, min(settings.lists, count))
        generator = np.random.default_rng(random_state)
        sample_size = min(count, max(lists * settings.points_per_list, 10_000))
        sample = take(embeddings, np.sort(generator.choice(count, sample_size, replace=False)))
        # Finding the nearest centroid, of each row and time after time, is what takes long.
        quantiser: Any = faiss.IndexFlatIP(dimension)
        moved = on_gpu(quantiser, device)
        index = _inverted_lists(moved or quantiser, dimension, lists, kind)
        index.cp.seed = random_state % (2**31 - 1) + 1
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = settings.points_per_list
        index.cp.spherical = True
        index.train(sample)
        del sample
        for block in chunks(embeddings, chunk):
            index.add(block)
        if moved is not None:
            index.quantizer = quantiser = faiss.index_gpu_to_cpu(moved)
        quantiser.this.disown()
        index.own_fields = True
        built = cls(index, kind, {"lists": lists, "trained_for": count}, device)
        built._set_probes(embeddings, settings, generator, queries)
        return built

    def _set_probes(
        self,
        embeddings: Rows,
        settings: IndexSettings,
        generator: np.random.Generator,
        queries: np.ndarray | None,
    ) -> None:
        if settings.probes != "auto":
            self.index.nprobe = min(int(settings.probes), self.evidence["lists"])
            self.evidence["probes"] = self.index.nprobe
            return
        count = len(embeddings)
        if queries is None:
            queries = take(embeddings, generator.choice(count, min(count, RECALL_QUERIES), False))
        k = min(10, count)
        similarities, truth = exact_search(queries, embeddings, k, self.device)
        # A query that is a row itself, or its copy, would find that in any case.
        truth = np.where(similarities > ITSELF, -1, truth)
        sought = (truth >= 0).sum()
        tried: dict[str, float] = {}
        lists = self.evidence["lists"]
        probes = 1
        while True:
            self.index.nprobe = probes
            _, found = self.search(queries, k * REFINE[self.kind])
            hits = [np.isin(a[a >= 0], b).sum() for a, b in zip(truth, found, strict=True)]
            recall = sum(hits) / max(1, sought) if sought else 1.0
            tried[str(probes)] = float(recall)
            if recall >= RECALL_GOAL or probes >= lists:
                break
            probes = min(lists, max(probes + 1, round(probes * 1.5)))
        self.evidence |= {"probes": probes, "recall_at_10": tried}

    def describe(self) -> dict[str, Any]:
        """Kind, rows and evidence, for the manifest."""
        return {"kind": self.kind, "rows": len(self), **self.evidence}

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def add(self, embeddings: Rows, chunk: int = 16_384) -> None:
        """Appends rows, shape [n, d]; they get the next row numbers."""
        for block in chunks(embeddings, chunk):
            self.index.add(block)
        self._on_gpu = None

    def remove(self, rows: np.ndarray) -> None:
        """Takes rows out, ascending int64 [n]; those after them get lower numbers."""
        import faiss

        if len(rows) == 0:
            return
        stays = np.ones(len(self), dtype=bool)
        stays[rows] = False
        self.index.remove_ids(rows)
        self._on_gpu = None
        if self.kind == "flat":
            return
        # Inverted lists know their rows by number.
        numbers = np.cumsum(stays) - 1
        lists = self.index.invlists
        for place in range(lists.nlist):
            if size := lists.list_size(place):
                held = faiss.rev_swig_ptr(lists.get_ids(place), size)
                held[:] = numbers[held]

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest rows of each unit query.

        Parameters
        ----------
        queries : float32 [n, d]
        k : int
            Clamped to the size of the index.

        Returns
        -------
        similarities : float32 [n, k], descending
        rows : int64 [n, k]
            -1 where inverted lists held fewer than k rows.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.index.d:
            raise InvalidEmbedding(
                f"queries must have shape [n, {self.index.d}]; got {queries.shape}"
            )
        k = min(k, len(self))
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        searcher = self._searcher(k)
        ordered = self.kind != "flat" and len(queries) > FEW_QUERIES
        if searcher is self.index and ordered:
            return self._search_lists(queries, k)
        return searcher.search(queries, k)

    def _search_lists(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What faiss's own search of inverted lists finds, with lists searched by neighbours in turn.

        Queries that share their nearest lists come one after the other, so that a list is read
        from the processor's cache after the first of them.
        """
        import faiss

        likeness, lists = self.index.quantizer.search(queries, self.index.nprobe)
        order = np.lexsort(lists.T[::-1])
        # One call is searched by one thread.
        threads = faiss.omp_get_max_threads()
        size = min(QUERIES_IN_TURN, -(-len(queries) // threads))
        similarities = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)

        def search(start: int) -> None:
            part = order[start : start + size]
            similarities[part], rows[part] = self.index.search_preassigned(
                queries[part], k, lists[part], likeness[part]
            )

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(search, range(0, len(queries), size)))
        return similarities, rows

    def _searcher(self, k: int) -> Any:
        """The index on the GPU where there is one that can do it, else on the CPU."""
        probes = 1 if self.kind == "flat" else self.index.nprobe
        if self.device == "cpu" or max(k, probes) > MOST_SELECTED:
            return self.index
        if self._on_gpu is None:
            # The tables of product codes fit a GPU's shared memory in half precision alone; what
            # they find is scored again.
            self._on_gpu = on_gpu(self.index, self.device, half=self.kind == "ivf_pq")
            if self._on_gpu is None:
                self.device = "cpu"
                return self.index
        if self.kind != "flat":
            self._on_gpu.nprobe = probes
        return self._on_gpu

    def save(self, path: Path) -> None:
        """Writes `path`.faiss and `path`.json."""
        import faiss

        faiss.write_index(self.index, f"{path}.faiss")
        state = {"kind": self.kind, "rows": len(self), "evidence": self.evidence}
        Path(f"{path}.json").write_text(json.dumps(state, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> EmbeddingIndex:
        """Reads what `save` wrote."""
        import faiss

        state = json.loads(Path(f"{path}.json").read_text())
        index = faiss.read_index(f"{path}.faiss")
        return cls(index, state["kind"], state["evidence"], resolve_device(device))


def _inverted_lists(quantiser: Any, dimension: int, lists: int, kind: Kind) -> Any:
    import faiss

    inner = faiss.METRIC_INNER_PRODUCT
    index: Any
    if kind == "ivf_pq":
        parts = next(p for p in (64, 48, 32, 16, 8, 4, 2, 1) if dimension % p == 0)
        index = faiss.IndexIVFPQ(quantiser, dimension, lists, parts, 8, inner)
    else:
        scalar = faiss.ScalarQuantizer
        code = scalar.QT_fp16 if kind == "ivf" else scalar.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(
            quantiser, dimension, lists, code, inner, kind != "ivf"
        )
    return index
