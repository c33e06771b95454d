"""What the filter says of external rows, and the thresholds it goes by.

Thresholds that are `auto` are measured by filtering one half of the internal pairs by the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

VERDICTS = ("kept", "cluster", "instance")

# Below the least that either figure of a pair can be: nothing is dropped.
NO_THRESHOLD = -2.0
Threshold = Annotated[float, Field(ge=NO_THRESHOLD, le=1)]

# Percentiles tried, from the largest down, and the share that must pass both thresholds.
PERCENTILES = tuple(np.linspace(5.0, 0.0, 51))
SHARE_KEPT = 0.95


@dataclass(frozen=True)
class FilterVerdicts:
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


def common_percentile(s_cent: np.ndarray, s_inst: np.ndarray) -> dict[str, Any]:
    """Both thresholds at the largest common percentile at which 95 % of the rows pass both.

    Parameters
    ----------
    s_cent, s_inst : float32 [n]
        Figures of rows that should be kept.

    Returns
    -------
    dict
        percentile (at most the 5th), passed (share), tau_cent, tau_inst.
    """
    for percentile in PERCENTILES:
        tau = np.percentile(s_cent, percentile), np.percentile(s_inst, percentile)
        passed = float(((s_cent >= tau[0]) & (s_inst >= tau[1])).mean())
        if passed >= SHARE_KEPT:
            break
    return {
        "percentile": float(percentile),
        "passed": passed,
        "tau_cent": float(tau[0]),
        "tau_inst": float(tau[1]),
    }
