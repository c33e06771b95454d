"""The filter's thresholds, measured by filtering one half of the internal pairs by the other."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

# Below the least that either figure of a pair can be: nothing is dropped.
NO_THRESHOLD = -2.0
Threshold = Annotated[float, Field(ge=NO_THRESHOLD, le=1)]

# Percentiles tried, from the largest down, and the share that must pass both thresholds.
PERCENTILES = tuple(np.linspace(5.0, 0.0, 51))
SHARE_KEPT = 0.95


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
