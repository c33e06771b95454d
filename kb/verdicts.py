"""What the filter says of external rows: kept, or dropped and why, with both figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VERDICTS = ("kept", "cluster", "instance")


@dataclass(frozen=True)
class Verdicts:
    """What the filter says of every external row.

    Attributes
    ----------
    verdict : str array [n]
        "kept", "cluster" (its whole cluster was dropped) or "instance".
    cluster : int64 [n]
        External cluster of the row.
    centroid_similarity : float32 [n]
        Cosine of the row's cluster to the matched internal centroid.
    instance_similarity : float32 [n]
        The row's own figure, by the setting `instance`.
    """

    verdict: np.ndarray
    cluster: np.ndarray
    centroid_similarity: np.ndarray
    instance_similarity: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """bool [n]"""
        return self.verdict == "kept"

    def counts(self) -> dict[str, int]:
        """Rows by verdict."""
        return {name: int((self.verdict == name).sum()) for name in VERDICTS}
