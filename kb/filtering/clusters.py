"""Clusters of joint embeddings, and how they are matched between two sides."""

from __future__ import annotations

import numpy as np

from kb.device import on_gpu
from kb.embeddings import normalise
from kb.index.neighbours import top_k

FEWEST_CLUSTERS = 4


def joint(image_embeddings: np.ndarray, text_embeddings: np.ndarray) -> np.ndarray:
    """u = [z_image ; z_text] / sqrt(2) of unit rows: float32 [n, d_image + d_text], unit rows."""
    first = image_embeddings.shape[1]
    both = np.empty((len(image_embeddings), first + text_embeddings.shape[1]), dtype=np.float32)
    both[:, :first] = normalise(image_embeddings)
    both[:, first:] = normalise(text_embeddings)
    both *= np.float32(np.sqrt(0.5))
    return both


def k_means(
    rows: np.ndarray,
    clusters: int,
    random_state: int,
    device: str,
    *,
    iterations: int = 25,
    points_per_centroid: int = 64,
) -> np.ndarray:
    """Unit centroids of unit rows, float32 [clusters, d].

    Lloyd's algorithm from k-means++ where the rows are few, from random rows where they are
    many (k-means++ costs as much as all iterations then).
    """
    import faiss

    clusters = min(clusters, len(rows))
    small = len(rows) <= 20_000
    machine = faiss.Kmeans(
        rows.shape[1],
        clusters,
        niter=iterations,
        nredo=3 if small else 1,
        seed=random_state % (2**31 - 1) + 1,
        min_points_per_centroid=1,
        max_points_per_centroid=points_per_centroid,
    )
    if small:
        machine.cp.init_method = faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS
    machine.index = on_gpu(machine.index, device) or machine.index
    machine.train(np.ascontiguousarray(rows, dtype=np.float32))
    return normalise(np.asarray(machine.centroids))


def internal_clusters(count: int) -> int:
    """sqrt(n / 2) clusters for n internal rows, at least 4."""
    return max(FEWEST_CLUSTERS, round(np.sqrt(count / 2)))


def external_clusters(count: int) -> int:
    """sqrt(n) clusters for n external rows, at least 4."""
    return max(FEWEST_CLUSTERS, round(np.sqrt(count)))


def match_centroids(
    foreign: np.ndarray, known: np.ndarray, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """For each foreign centroid the nearest known one, int64 [c], and their cosine."""
    similarity, nearest = top_k(foreign, known, 1, device=device)
    return nearest[:, 0], similarity[:, 0]


def nearest_centroid(rows: np.ndarray, centroids: np.ndarray, device: str = "cpu") -> np.ndarray:
    """The cluster of each row, int64 [n]."""
    return top_k(rows, centroids, 1, device=device)[1][:, 0]
