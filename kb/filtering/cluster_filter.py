"""Cluster filter: which external pairs belong to the internal domain, each with its verdict."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kb.device import resolve_device
from kb.embeddings import sample_rows
from kb.filtering.clusters import (
    external_clusters,
    internal_clusters,
    k_means,
    match_centroids,
    nearest_centroid,
)
from kb.filtering.likeness import contrast, likeness
from kb.filtering.settings import FilterSettings
from kb.filtering.verdicts import NO_THRESHOLD, FilterVerdicts, common_percentile
from kb.groups import halves
from kb.storage import load_state, save_state

SPLITS = 3
# The arrays of a fitted filter.
LEARNED = (
    "centroids",
    "reference",
    "own_reference",
    "external_centroids",
    "matched",
    "centroid_similarity",
)
# With fewer rows a half has too few to set a percentile by.
FEWEST_TO_MEASURE = 16


class ClusterFilter:
    """Drops external clusters, then external pairs, that are far from every internal cluster.

    Thresholds that are `auto` need 16 internal pairs to be measured. With fewer nothing is dropped:
    on single emoji, a former example world, the paper's 0.6 by `centroid` would keep 0 to 3 % of what
    is relevant, and the examples found among all of its external pairs are better by far than any
    among so few.

    K-means runs on joint embeddings of both sides, sqrt(n / 2) internal and sqrt(m) external
    clusters, at least 4. Each external centroid is matched to its nearest internal one.

    A pair of a kept cluster is then judged by itself. The paper compares it with the matched
    centroid. Its likeness to the 10 nearest internal pairs tells more, and most does that less half
    of its likeness to the 10 nearest external ones (`kb.filtering.likeness.contrast`), which is the default;
    chosen on held-out categories of single emoji's internal side, where the areas under the curve
    were 0.66, 0.76 and 0.82 (tests/benchmarks/kb.md).

    Parameters
    ----------
    settings : FilterSettings
    random_state : int
    device : str

    Attributes
    ----------
    centroids_ : float32 [c, d]
        Internal centroids.
    reference_ : float32 [r, d]
        Internal pairs that neighbours are taken from.
    own_reference_ : float32 [s, d]
        External ones, of the last `fit_external`.
    tau_cent_, tau_inst_ : float
        Thresholds used.
    evidence_ : dict
        How the thresholds came about.
    external_centroids_, matched_, centroid_similarity_ :
        Of the last `predict`: external centroids, and for each its internal one and the cosine.
    """

    def __init__(
        self,
        settings: FilterSettings | None = None,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.settings = settings or FilterSettings()
        self.random_state = random_state
        self.device = device

    def fit(
        self, internal: np.ndarray, count: int | None = None, groups: np.ndarray | None = None
    ) -> ClusterFilter:
        """Learns centroids and thresholds from a sample of the internal joint embeddings.

        Parameters
        ----------
        internal : float32 [n, d]
        count : int, optional
            Internal rows in all, default n: sqrt(count / 2) clusters are formed, at least 4.
        groups : int [n], optional
            Rows that share a half have equal numbers (`kb.groups`), and lie in one half together.
            By default no two do.
        """
        if len(internal) == 0:
            raise ValueError("the filter needs internal pairs; got none")
        clusters = internal_clusters(len(internal) if count is None else count)
        self.centroids_ = self._cluster(internal, clusters)
        size = self.settings.reference
        if self.settings.instance == "contrast":
            # The halves that the threshold is measured on are so large: likeness grows with size.
            size = min(size, max(1, len(internal) // 2))
        self.reference_ = internal[sample_rows(len(internal), size, self.random_state)]
        self.evidence_: dict[str, Any] = {"splits": []}
        self.tau_cent_, self.tau_inst_ = self._thresholds(
            internal, clusters, np.arange(len(internal)) if groups is None else groups
        )
        return self

    def _cluster(self, rows: np.ndarray, clusters: int, random_state: int | None = None) -> Any:
        seed = self.random_state if random_state is None else random_state
        return k_means(
            rows,
            clusters,
            seed,
            resolve_device(self.device),
            iterations=self.settings.iterations,
            points_per_centroid=self.settings.points_per_centroid,
        )

    def _thresholds(
        self, internal: np.ndarray, clusters: int, groups: np.ndarray
    ) -> tuple[float, float]:
        """The given thresholds, or those measured by filtering one half by the other."""
        given = (self.settings.tau_cent, self.settings.tau_inst)
        measured = (NO_THRESHOLD, NO_THRESHOLD)
        if "auto" in given and len(np.unique(groups)) >= FEWEST_TO_MEASURE:
            generator = np.random.default_rng(self.random_state)
            dealt = [halves(groups, generator) for _ in range(SPLITS)]
            splits = [
                self._split(internal[here], internal[there], clusters, number)
                for number, (here, there) in enumerate(dealt)
            ]
            self.evidence_["splits"] = splits
            measured = (
                float(np.mean([split["tau_cent"] for split in splits])),
                float(np.mean([split["tau_inst"] for split in splits])),
            )
        return (
            measured[0] if given[0] == "auto" else float(given[0]),
            measured[1] if given[1] == "auto" else float(given[1]),
        )

    def _split(
        self, here: np.ndarray, there: np.ndarray, clusters: int, number: int
    ) -> dict[str, Any]:
        seed = self.random_state + 1 + number
        # As many clusters as the whole has: coarser ones would set the thresholds too low.
        known = self._cluster(here, clusters, seed)
        foreign = self._cluster(there, external_clusters(len(there)), seed)
        device = resolve_device(self.device)
        matched, by_centroid = match_centroids(foreign, known, device)
        cluster = nearest_centroid(there, foreign, device)
        # Likeness alone does not grow with the size of the other side as contrast does: the whole
        # is compared with, but for the row itself.
        alone = self.settings.instance == "neighbours"
        size = self.settings.reference
        reference = self.reference_ if alone else here[sample_rows(len(here), size, seed)]
        own = there[sample_rows(len(there), size, seed)]
        s_inst = self._figures(there, known, matched[cluster], reference, own, among=alone)
        return common_percentile(by_centroid[cluster], s_inst)

    def _figures(
        self,
        rows: np.ndarray,
        centroids: np.ndarray,
        matched: np.ndarray,
        reference: np.ndarray,
        own_reference: np.ndarray,
        among: bool = False,
    ) -> np.ndarray:
        """What each row is judged by, float32 [n]; `matched` [n] are the centroids' numbers.

        With `among` the reference may hold the rows themselves.
        """
        k, device = self.settings.neighbours, resolve_device(self.device)
        if self.settings.instance == "centroid":
            return np.einsum("nd,nd->n", rows, centroids[matched])
        if self.settings.instance == "neighbours":
            return likeness(rows, reference, k, device, own=among)
        return contrast(rows, reference, own_reference, k, device)

    def fit_external(self, sample: np.ndarray, count: int) -> ClusterFilter:
        """Clusters the external side, from a sample of its joint embeddings.

        Parameters
        ----------
        sample : float32 [s, d]
        count : int
            External rows in all: sqrt(count) clusters are formed, at least 4.
        """
        self.external_centroids_ = self._cluster(sample, external_clusters(count))
        self.matched_, self.centroid_similarity_ = match_centroids(
            self.external_centroids_, self.centroids_, resolve_device(self.device)
        )
        rows = sample_rows(len(sample), len(self.reference_), self.random_state)
        self.own_reference_ = sample[rows]
        return self

    def judge(self, blocks: Iterable[np.ndarray]) -> FilterVerdicts:
        """FilterVerdicts for blocks of external joint embeddings, after `fit_external`."""
        device = resolve_device(self.device)
        clusters, similarities = [], []
        for block in blocks:
            own = nearest_centroid(block, self.external_centroids_, device)
            clusters.append(own)
            sides = self.reference_, self.own_reference_
            similarities.append(self._figures(block, self.centroids_, self.matched_[own], *sides))
        cluster = np.concatenate(clusters) if clusters else np.empty(0, np.int64)
        s_inst = np.concatenate(similarities) if similarities else np.empty(0, np.float32)
        s_cent = self.centroid_similarity_[cluster]
        verdict = np.full(len(cluster), "kept", dtype="U8")
        verdict[s_inst < self.tau_inst_] = "instance"
        verdict[s_cent < self.tau_cent_] = "cluster"
        return FilterVerdicts(verdict, cluster, s_cent, s_inst.astype(np.float32))

    def predict(self, external: np.ndarray) -> FilterVerdicts:
        """Clusters and judges external joint embeddings that fit in memory, float32 [m, d]."""
        if external.shape[1] != self.centroids_.shape[1]:
            raise ValueError(
                f"external joint embeddings must have dimension {self.centroids_.shape[1]}; "
                f"got {external.shape[1]}"
            )
        return self.fit_external(external, len(external)).judge([external])

    def save(self, path: Path) -> None:
        """Writes the fitted state as `path`.safetensors and `path`.json."""
        arrays = {name: getattr(self, f"{name}_") for name in LEARNED}
        state = {
            "settings": self.settings.model_dump(mode="json"),
            "random_state": self.random_state,
            "tau_cent": self.tau_cent_,
            "tau_inst": self.tau_inst_,
            "evidence": self.evidence_,
        }
        save_state(path, arrays, state)

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> ClusterFilter:
        """Reads what `save` wrote; ready to `judge`."""
        arrays, state = load_state(path)
        loaded = cls(FilterSettings(**state["settings"]), state["random_state"], device)
        for name in LEARNED:
            setattr(loaded, f"{name}_", arrays[name])
        loaded.tau_cent_, loaded.tau_inst_ = state["tau_cent"], state["tau_inst"]
        loaded.evidence_ = state["evidence"]
        return loaded
