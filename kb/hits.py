"""What a retrieval finds: pairs with their figures, one by one or as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hit:
    """A retrieved pair.

    Attributes
    ----------
    id : str
    row : int
        Its row in the knowledge base at hand; not to be stored.
    intra : float
        Cosine of the query to the pair's half in the query's own modality.
    cross : float
        Cosine to the pair's other half: of the pseudo-embedding, or in mode `cross` with a
        shared space of the query itself. NaN where there is no mapping.
    score : float
        What the order is by.
    """

    id: str
    row: int
    intra: float
    cross: float
    score: float


@dataclass(frozen=True)
class Neighbours:
    """Hits as arrays, all [n, m], best first; row is -1 and figures NaN where there is none."""

    rows: np.ndarray
    intra: np.ndarray
    cross: np.ndarray
    score: np.ndarray
